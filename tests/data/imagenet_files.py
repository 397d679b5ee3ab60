"""A small ImageNet 2012 with known labels, in the structure of its authors' files."""

import io
import tarfile

import numpy as np
from PIL import Image

# WordNet numbers of the classes by ILSVRC2012_ID, from 1; not sorted, as in the original. HIGHER are not leaves.
LEAVES = ("n02119789", "n02100735", "n01440764", "n02110185")
HIGHER = ("n00001740", "n00001930")
CLASSES = tuple(sorted(LEAVES))
PER_CLASS = 3
TRUTH = (3, 1, 4, 1, 2, 2, 3)  # the ILSVRC2012_IDs of the validation images 1 to 7


def colour_of(number):
    """The colour of every pixel of a class's images; its red identifies the class in any form of the data set."""
    return 40 * LEAVES.index(number) + 30, 90, 200


def jpeg(number, seed=0, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour_of(number)).save(file, "JPEG", quality=95, comment=str(seed))
    return file.getvalue()


def train_images():
    """Yields (WordNet number, file name, bytes)."""
    for number in LEAVES:
        for i in range(PER_CLASS):
            yield number, f"{number}_{10 * i + 7}.JPEG", jpeg(number, i)


def validation_images():
    """Yields the same as :func:`train_images`, in the order of the file names."""
    for i, identity in enumerate(TRUTH, 1):
        number = LEAVES[identity - 1]
        yield number, f"ILSVRC2012_val_{i:08}.JPEG", jpeg(number, i, (30, 40))


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def tar_of(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files:
            add(archive, name, content)
    return file.getvalue()


def meta_mat():
    """The bytes of meta.mat as in the development kit: ``synsets``, an array of structs, with the leaves first."""
    from scipy.io import savemat

    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
              "num_train_images"]  # fmt: skip
    synsets = np.empty((len(LEAVES) + len(HIGHER), 1), [(name, object) for name in fields])
    for i, number in enumerate(LEAVES + HIGHER):
        leaf = i < len(LEAVES)
        children = np.zeros((1, 0)) if leaf else np.asarray([[1, 2]], np.float64)
        synsets[i, 0] = (float(i + 1), number, f"word {i}, other", "a gloss", float(children.size), children,
                         0.0 if leaf else 2.0, 1300.0 if leaf else 0.0)  # fmt: skip
    file = io.BytesIO()
    savemat(file, {"synsets": synsets})
    return file.getvalue()


def write_tars(folder):
    """Writes the three files of ImageNet's site; the validation images are not in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = {number: tar_of((n, data) for k, n, data in train_images() if k == number) for number in LEAVES}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of((f"{n}.tar", inner[n]) for n in reversed(CLASSES)))
    files = [(name, data) for _, name, data in validation_images()]
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(files[i] for i in (4, 0, 6, 2, 1, 5, 3)))
    write_devkit(folder)
    return folder


def write_devkit(folder, truth=TRUTH):
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        top = "ILSVRC2012_devkit_t12"
        add(archive, f"{top}/readme.txt", b"Introduction")
        add(archive, f"{top}/data/ILSVRC2012_validation_ground_truth.txt", "".join(f"{i}\n" for i in truth).encode())
        add(archive, f"{top}/data/meta.mat", meta_mat())


def write_folders(folder):
    """Writes the class folders in ``train`` and ``val``."""
    for split, images in (("train", train_images()), ("val", validation_images())):
        for number, name, data in images:
            (folder / split / number).mkdir(parents=True, exist_ok=True)
            (folder / split / number / name).write_bytes(data)
    return folder


def prepare_tfds(folder, test=False):
    """Prepares the data set with TFDS's own writer: labels in the order of the sorted WordNet numbers.

    Args:
      folder: The folder of data sets.
      test: Whether to add the split ``test`` with the label -1, which TFDS makes if it has the tar file of that split.
    """
    import contextlib

    with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as unregistered:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import registered

        unregistered.enter_context(
            registered.skip_registration()
        )  # otherwise a second call would register the name twice

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "file_name": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                splits = {"train": train_images(), "validation": validation_images()}
                if test:
                    splits["test"] = ((-1, f"{i}.JPEG", jpeg(LEAVES[0], i)) for i in range(4))
                return {name: self._generate_examples(images) for name, images in splits.items()}

            def _generate_examples(self, images):
                for number, name, data in images:
                    yield name, {"image": io.BytesIO(data), "label": number, "file_name": name}

        Imagenet2012(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder
