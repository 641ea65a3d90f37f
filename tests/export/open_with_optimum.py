"""Run by test_hugging_face.py in an environment of its own: a folder, texts as JSON -> what it answers."""

import json
import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

folder, texts = sys.argv[1], json.loads(sys.argv[2])  # a text is [text] or [text, pair]
model = ORTModelForSequenceClassification.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = [tokenizer(*text, truncation=True, return_tensors="pt") for text in texts]
together = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="pt")
answer = {
    "ids": [one["input_ids"][0].tolist() for one in inputs],
    "logits": [model(**one).logits[0].tolist() for one in inputs],
    "batch_logits": model(**together).logits.tolist(),
    "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
}
json.dump(answer, sys.stdout)
