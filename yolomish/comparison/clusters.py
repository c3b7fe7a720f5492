"""Which validation images belong together: frames of a video or pictures of a scene are no independent images."""

from __future__ import annotations

import json
import re

import numpy as np

from yolomish.data.datasets import DetectionData
from yolomish.errors import YolomishError
from yolomish.files import read_text

FOLDER = "folder"
FEWEST = 2


def cluster_images(data: DetectionData, key: str) -> np.ndarray:
    """The number of each image's cluster, from 0, in the order of ascending image ids, as AP's resamples have them.

    ``key`` is ``folder`` (of the picture), a regular expression with one group that is searched in file names
    (``(.+)_frame``), or the name of an entry of the images in the COCO file (``video_id``). YolomishError where an image
    has none, and where all are in one cluster.
    """
    places = sorted(range(len(data)), key=lambda i: data.image_ids[i])
    if key == FOLDER:
        found = [str(data.path(i).parent) for i in places]
    elif "(" in key:
        found = [_searched(key, data.path(i).name) for i in places]
    else:
        found = _entries(data, key, [data.image_ids[i] for i in places])
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(name, len(numbers)) for name in found])
    if len(numbers) < FEWEST:
        raise YolomishError(f"--cluster {key} puts all {len(found)} images into one cluster: nothing can be resampled")
    return groups


def _searched(key: str, name: str) -> str:
    try:
        match = re.search(key, name)
    except re.error as error:
        raise YolomishError(f"--cluster {key!r} is no regular expression: {error}") from None
    if match is None or not match.groups():
        raise YolomishError(f"--cluster {key!r} finds no group in the file name {name!r}")
    return str(match.group(1))


def _entries(data: DetectionData, key: str, image_ids: list[int]) -> list[str]:
    way_out = "use folder, or a regular expression with a group for file names, such as '(.+)_frame'"
    if data.source.suffix != ".json":
        raise YolomishError(f"--cluster {key}: {data.source} is no COCO file whose images could say it: {way_out}")
    content = json.loads(read_text(data.source))
    of_image = {image.get("id"): image.get(key) for image in content.get("images", ()) if isinstance(image, dict)}
    missing = [image_id for image_id in image_ids if of_image.get(image_id) is None]
    if missing:
        raise YolomishError(
            f"--cluster {key}: image {missing[0]} of {data.source} has no {key!r} ({len(missing)} lack it): {way_out}"
        )
    return [str(of_image[image_id]) for image_id in image_ids]
