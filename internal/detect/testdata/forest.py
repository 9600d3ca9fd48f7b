#!/usr/bin/python3
"""Writes forest.json: data, a forest that scikit-learn grew on it, and scikit-learn's
scores. Debian: python3-sklearn. usage: forest.py > forest.json"""
import json
import numpy as np
from sklearn.ensemble import IsolationForest

rng = np.random.RandomState(7)
train = np.round(np.column_stack([
    rng.normal(0, 1, 160), rng.exponential(2, 160), rng.uniform(-1, 1, 160),
    rng.normal(5, .1, 160), rng.gamma(2, 1, 160)]), 4).astype(np.float32)
probe = np.vstack([train[:40], np.round(rng.uniform(-8, 12, (40, 5)), 4)]).astype(np.float32)
f = IsolationForest(n_estimators=32, max_samples=64, random_state=3).fit(train)
trees = []
for e in f.estimators_:
    t = e.tree_
    trees.append(dict(feature=t.feature.tolist(), threshold=[round(float(x), 9) for x in t.threshold],
                      left=t.children_left.tolist(), right=t.children_right.tolist(), samples=t.n_node_samples.tolist()))
print(json.dumps(dict(samples=64, train=train.tolist(), probe=probe.tolist(), trees=trees,
                      scores=(-f.score_samples(probe)).tolist()), separators=(',', ':')).replace('],"', '],\n"'))
