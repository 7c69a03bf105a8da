"""What happens to the values between a native tensor and a foreign one.

A rule joins one or more native tensors with one or more foreign ones. A change says what shapes
the foreign ones have and carries values over. Most changes need no second direction: with the
wanted shapes given, reshaping or cutting works alike both ways.
"""

from collections.abc import Callable, Sequence

import numpy as np

Shape = tuple[int, ...]


class Change:
    """One native and one foreign tensor with the same values and shape."""

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """Shapes of the `count` foreign tensors that belong to native ones of these shapes."""
        if len(native) != 1 or count != 1:
            raise ValueError(
                f"{type(self).__name__} joins 1 tensor with 1, "
                f"the rule has {len(native)} and {count}"
            )
        return [native[0]]

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """The foreign tensors, of the given shapes."""
        return list(arrays)

    def to_native(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """The native tensors, of the given shapes."""
        return self.to_foreign(arrays, shapes)


class Reshape(Change):
    """The same values in the same order under another shape."""

    def __init__(self, view: Callable[[Shape], Shape]):
        self.view = view

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """The view of the one native shape."""
        return [self.view(shape) for shape in super().foreign_shapes(native, count)]

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Reshapes; the shapes say which way."""
        return [a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)]


class Cut(Change):
    """Tensors that are pieces of one: native ones joined along `axis`, cut into equal foreign ones.

    Covers query, key and value stored apart or as one matrix, on either side.
    """

    def __init__(self, axis: int = 0):
        self.axis = axis

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """`count` equal pieces of the joined native tensors."""
        total = sum(shape[self.axis] for shape in native)
        if total % count:
            raise ValueError(f"length {total} on axis {self.axis} does not cut into {count} pieces")
        piece = list(native[0])
        piece[self.axis] = total // count
        return [tuple(piece)] * count

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Joins the pieces and cuts the whole again, by the lengths of the wanted shapes."""
        whole = np.concatenate(arrays, self.axis)
        ends = np.cumsum([shape[self.axis] for shape in shapes])
        return np.split(whole, ends[:-1], self.axis)


class Twins(Change):
    """One native tensor that the peer stores under several names."""

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """The native shape, once for each name."""
        return super().foreign_shapes(native, 1) * count

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """The same tensor under each name."""
        return [arrays[0]] * len(shapes)

    def to_native(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """The common tensor.

        Raises:
            ValueError: the tensors differ, so they are not one.
        """
        if any(not np.array_equal(arrays[0], other) for other in arrays[1:]):
            raise ValueError("these are names of one tensor, but their values differ")
        return [arrays[0]]


class PatchPixels(Change):
    """A patch embedding: a convolution (D, C, p, p) here, there a linear layer (D, p * p * C).

    The peer lays out a patch row by row, with the channels of a pixel side by side.
    """

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """All pixels of a patch on one axis."""
        ((width, channels, rows, cols),) = super().foreign_shapes(native, count)
        return [(width, rows * cols * channels)]

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Channels to the end, then flat."""
        return [a.transpose(0, 2, 3, 1).reshape(s) for a, s in zip(arrays, shapes, strict=True)]

    def to_native(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Rows, columns and channels apart, then channels in front."""
        return [
            a.reshape(width, rows, cols, channels).transpose(0, 3, 1, 2)
            for a, (width, channels, rows, cols) in zip(arrays, shapes, strict=True)
        ]


KEEP = Change()
SCALAR = Reshape(lambda shape: ())
"""A single value: (1,) here, () there."""
