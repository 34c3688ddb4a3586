"""Cases for `tests/it/real_chat.rs`: chat templates rendered by transformers' own environment.

    python scripts/real_chat.py TEMPLATES CASES.json

needs transformers and jinja2. Where a template refuses the messages, the expected text is null.
"""

import datetime
import glob
import json
import sys

from transformers.utils import chat_template_utils as utils


class Day(datetime.datetime):
    """The day that both sides are told."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 29, tzinfo=tz)


utils.datetime = Day

USER = {"role": "user", "content": "Hello, how are you? 2 < 3 & \"so\"\n"}
ANSWER = {"role": "assistant", "content": " Fine, thanks. "}
SYSTEM = {"role": "system", "content": "Be brief."}
THOUGHT = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nFine."}
DIALOGUES = [
    [USER],
    [SYSTEM, USER],
    [USER, ANSWER],
    [SYSTEM, USER, ANSWER, {"role": "user", "content": "Größe? 日本"}],
    [USER, THOUGHT, USER],
    [USER, ANSWER, USER, THOUGHT],
    [USER, USER],
]


def main(folder, out):
    cases = []
    for path in sorted(glob.glob(f"{folder}/**/*.jinja", recursive=True)):
        source = open(path, encoding="utf-8", newline="").read()
        for messages in DIALOGUES:
            for add in (True, False):
                for thinking in (None, True, False):
                    variables = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": add}
                    if thinking is not None:
                        variables["enable_thinking"] = thinking
                    try:
                        compiled = utils._compile_jinja_template(source)
                        # Without `tools`, which apply_chat_template sets to None: some templates loop over them unasked.
                        expected = compiled.render(messages=messages, **variables)
                    except Exception as error:
                        print(f"{path}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
                        expected = None
                    cases.append(
                        {"template": path, "messages": messages, "add": add, "thinking": thinking, "expected": expected}
                    )
    json.dump(cases, open(out, "w"))
    print(f"{len(cases)} cases of {len({case['template'] for case in cases})} templates")


main(*sys.argv[1:])
