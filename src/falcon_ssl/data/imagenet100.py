"""Which hundred classes of ImageNet-1K an "ImageNet-100" holds: two lists are in use.

They share 12 of 100 classes, so a result without the name of its list says little.
imagenet100-cmc (Tian et al. 2020) comes ready made from the hub; this one is cut out of ImageNet-1K.
"""

# imagenet100-scan (Van Gansbeke et al. 2020), as labels of ImageNet-1K (WordNet ids in order).
SCAN_CLASSES: tuple[int, ...] = (
    15, 20, 37, 65, 67, 68, 71, 99, 101, 137, 143, 146, 158, 164, 179, 182, 185, 192, 197,
    199, 205, 213, 223, 230, 231, 232, 236, 251, 272, 279, 280, 286, 288, 295, 322, 330,
    338, 370, 376, 409, 412, 444, 462, 463, 508, 515, 518, 525, 543, 546, 549, 553, 578,
    589, 596, 599, 615, 621, 639, 640, 646, 650, 658, 678, 682, 683, 687, 715, 716, 726,
    727, 737, 742, 748, 757, 788, 794, 797, 821, 824, 830, 832, 846, 856, 860, 863, 871,
    880, 881, 886, 897, 906, 908, 913, 924, 927, 931, 935, 954, 984,
)  # fmt: skip
