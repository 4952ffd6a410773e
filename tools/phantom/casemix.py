"""Which findings occur together: drawn as in NIH ChestX-ray14, with every finding well represented."""

import numpy as np

NAMES = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
         "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")  # fmt: skip

# Counts over the 112,120 rows of NIH's Data_Entry_2017_v2020.csv: how many images carry both findings (the diagonal:
# how many carry the finding at all), and how many carry no other.
TOGETHER = np.array([
    [11559, 370, 3275, 3264, 739, 590, 262, 774, 1223, 221, 424, 220, 496, 40],
    [370, 2776, 1063, 587, 102, 108, 41, 49, 169, 127, 44, 52, 111, 7],
    [3275, 1063, 13317, 4000, 1254, 912, 269, 996, 1287, 593, 359, 188, 849, 21],
    [3264, 587, 4000, 19894, 1159, 1546, 605, 946, 1221, 981, 449, 345, 750, 33],
    [739, 102, 1254, 1159, 5782, 906, 71, 431, 610, 129, 215, 117, 452, 25],
    [590, 108, 912, 1546, 906, 6331, 70, 341, 428, 131, 115, 166, 411, 10],
    [262, 41, 269, 605, 71, 70, 1431, 41, 123, 340, 23, 11, 48, 3],
    [774, 49, 996, 946, 431, 341, 41, 5302, 223, 33, 747, 80, 289, 9],
    [1223, 169, 1287, 1221, 610, 428, 123, 223, 4667, 162, 103, 79, 251, 4],
    [221, 127, 593, 981, 129, 131, 340, 33, 162, 2303, 30, 9, 64, 3],
    [424, 44, 359, 449, 215, 115, 23, 747, 103, 30, 2516, 36, 151, 4],
    [220, 52, 188, 345, 117, 166, 11, 80, 79, 9, 36, 1686, 176, 8],
    [496, 111, 849, 750, 452, 411, 48, 289, 251, 64, 151, 176, 3385, 8],
    [40, 7, 21, 33, 25, 10, 3, 9, 4, 3, 4, 8, 8, 227],
])  # fmt: skip
ALONE = np.array([4215, 1093, 3955, 9547, 2139, 2705, 322, 2194, 1310, 628, 892, 727, 1126, 110])

NO_FINDING_SHARE = 1 / 3
MAX_TOGETHER = 4  # more than four findings on one phantom leave nothing to tell them apart by


def draw_label_sets(count: int, quota: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Draw the findings of `count` images.

    A third of the images have none. Each other one starts from one finding: first those short of `quota` images,
    then by the square root of their frequency at NIH, so that the rare ones are not lost; its companions are drawn
    by how often NIH's radiographs show them together with it.
    """
    normal = round(count * NO_FINDING_SHARE)
    have = np.zeros(len(NAMES), int)
    weights = np.sqrt(np.diag(TOGETHER))
    sets = []
    for _ in range(count - normal):
        short = have < quota
        # The rarest first: the frequent ones fill up as companions.
        first = int(np.argmin(np.where(short, np.diag(TOGETHER), np.iinfo(np.int64).max))) if short.any() else None
        if first is None:
            first = int(rng.choice(len(NAMES), p=weights / weights.sum()))
        chosen = [first, *companions(first, rng)]
        have[chosen] += 1
        sets.append(tuple(NAMES[index] for index in sorted(chosen)))
    sets += [()] * normal
    return [sets[index] for index in rng.permutation(count)]


def companions(first: int, rng: np.random.Generator) -> list[int]:
    """Draw the findings that accompany one, as often and as many as at NIH."""
    total, alone = TOGETHER[first, first], ALONE[first]
    if rng.random() < alone / total:
        return []
    weights = TOGETHER[first].astype(float)
    weights[first] = 0
    mean = weights.sum() / (total - alone)  # at least one, and this many on average
    number = min(1 + rng.poisson(max(mean - 1, 0)), MAX_TOGETHER - 1)
    return [int(i) for i in rng.choice(len(NAMES), size=number, replace=False, p=weights / weights.sum())]
