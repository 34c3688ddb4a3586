"""How many answers hold a glad word, and how many a sorry one: a crude score, the same for every steering.

    python scripts/count_words.py answers-*.jsonl
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


print(f"{'answers':28}{'n':>4}{'glad':>6}{'sorry':>7}")
for path in map(pathlib.Path, sys.argv[1:]):
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"{path.stem:28}{len(texts):>4}{answers_with(GLAD, texts):>6}{answers_with(SORRY, texts):>7}")
