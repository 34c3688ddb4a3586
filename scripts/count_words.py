"""How many answers hold a glad word, and how many a sorry one: a crude score, the same for every steering.

    python scripts/count_words.py [--vector answers-good.jsonl] answers-*.jsonl

With --vector, that file's rank among the files of null
directions (their names hold -random-, -shuffled- or -components-).
"""
import json
import pathlib
import re
import sys

GLAD = "glad happy great wonderful congratulations pleased delighted excited proud thrilled pleasure enjoy enjoying excellent"
SORRY = "sorry disappointed disappointing sad loss unfortunately devastating difficult worry tragic terrible regret negative tough"


def answers_with(words, texts):
    pattern = re.compile(rf"\b({'|'.join(words.split())})\b", re.IGNORECASE)
    return sum(bool(pattern.search(text)) for text in texts)


arguments = sys.argv[1:]
own = pathlib.Path(arguments[1]) if arguments[:1] == ["--vector"] else None
counts = {}
print(f"{'answers':28}{'n':>4}{'glad':>6}{'sorry':>7}")
for path in map(pathlib.Path, arguments[2:] if own else arguments):
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    counts[path.stem] = answers_with(GLAD, texts)
    print(f"{path.stem:28}{len(texts):>4}{counts[path.stem]:>6}{answers_with(SORRY, texts):>7}")
for kind in ["random", "shuffled", "components"] if own else []:
    nulls = sorted(glad for name, glad in counts.items() if f"-{kind}-" in name)
    reach = sum(glad >= counts[own.stem] for glad in nulls)
    p = "" if kind == "components" else f", p = {(1 + reach) / (1 + len(nulls)):.3f}"
    print(f"{kind}: answers found, of {len(nulls)} directions {nulls}; the vector's rank {1 + reach} of {1 + len(nulls)}{p}")
