# SPDX-License-Identifier: Apache-2.0
"""Per-record clipping: norms over all layers together, then the clipped sum.

A backward pass leaves one :class:`Part` per layer.  All parts first say how long each
record's gradient is; then each sums its own share of the records' gradients, every
record times its factor.  The gradient of one record need not exist at any time: of a
linear layer or an embedding, norm and sum both follow from the layer's inputs and from
the errors that came back (Goodfellow 2015; "ghost clipping", Li et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, final

import torch
from torch import nn

__all__ = [
    "ClippedSums",
    "EmbeddingPart",
    "LinearPart",
    "Part",
    "RecordGradients",
    "SampledPart",
    "StoredPart",
]

# A float32 sum of squares drifts by 7e-4 over 2e7 values, by 1e-7 over this many.
_BLOCK: Final = 16_384
# Where a record's terms cancel out, its norm is known up to the rounding of the terms:
# this share of their lengths' sum is added to it.  It is far above what float64 loses,
# and far below what float32 could see.
_CANCELLED: Final = 2.0**-23

Sums = Iterator[tuple[torch.Tensor, torch.Tensor]]
Sampler = Callable[[Any, Any, torch.Tensor], Mapping[torch.Tensor, torch.Tensor]]


class Part(Protocol):
    """One layer's share of the gradient of every record of a physical batch."""

    @property
    def rows(self) -> int:
        """For how many records it stands."""

    def squares(self) -> torch.Tensor:
        """The squared L2 norm of each record's share, (rows,), float64."""

    def sums(self, factors: torch.Tensor) -> Sums:
        """For each parameter: the sum of the records' gradients times ``factors``.

        factors
            (rows,), float64; a record whose factor is 0 does not enter at all
        """


class RecordGradients(Protocol):
    """Watches a model: what the last forward and backward pass left behind."""

    def take(self) -> Sequence[Part]:
        """The parts of that pass, and forgets them.  No part: no gradient."""


@final
class ClippedSums:
    """Sums over records of gradients, each clipped to one norm over all parameters.

    A record whose gradient is not finite counts as zero; a parameter that the forward
    pass did not use has gradient zero.  Physical batches add up, in float64.
    """

    def __init__(self, trained: Sequence[nn.Parameter], *, clip_norm: float) -> None:
        self._trained = trained
        self._clip_norm = clip_norm
        self._sums: dict[int, torch.Tensor] = {}

    def add(self, parts: Sequence[Part]) -> None:
        """The records of one physical batch.

        In full precision, also where the caller's loop has turned autocast on.
        """
        if not parts or not parts[0].rows:
            return
        device = self._trained[0].device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            self._add(parts)

    def _add(self, parts: Sequence[Part]) -> None:
        squares = [part.squares() for part in parts]
        total = sum(s.to(squares[0].device) for s in squares)
        assert isinstance(total, torch.Tensor)
        factors = (self._clip_norm / total.sqrt()).clamp(max=1.0)
        # 0 * inf is not 0: a row that counts as zero has to go altogether.
        factors = torch.where(total.isfinite(), factors, 0.0)
        for part in parts:
            for parameter, clipped in part.sums(factors):
                known = self._sums.get(id(parameter))
                clipped = clipped.double()
                self._sums[id(parameter)] = (
                    clipped if known is None else known.add_(clipped)
                )

    def take(self) -> list[torch.Tensor]:
        """One float64 tensor per trained parameter, in its shape; begins anew."""
        sums, self._sums = self._sums, {}
        return [
            sums[id(p)].view(p.shape)
            if id(p) in sums
            else torch.zeros_like(p, dtype=torch.float64)
            for p in self._trained
        ]


def _entering(
    factors: torch.Tensor, *tensors: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """``factors`` and ``tensors`` without the rows whose factor is 0."""
    factors = factors.to(tensors[0].device)
    inside = factors > 0
    if inside.all():
        return factors, *tensors
    return factors[inside], *(t[inside] for t in tensors)


# At least what a square loses that underflows in float32.
_VANISHED: Final = 2.0**-125


def _row_squares(sample: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm of every row of a (records, values) matrix, float64.

    Never too small but for relative rounding: a square below float32's least normal
    number may be taken for 0, and be multiplied by a very large one afterwards.
    """
    blocks = [
        torch.linalg.vector_norm(block, dim=1).double().square()
        for block in torch.split(sample, _BLOCK, dim=1)
    ]
    return torch.stack(blocks, dim=1).sum(1) + sample.shape[1] * _VANISHED


def _contracted(
    factors: torch.Tensor, sample: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The rows of ``sample`` times ``factors``, summed in ``dtype``."""
    if sample.dtype == dtype:
        return factors.to(dtype) @ sample
    # Block by block: a copy of all gradients in another dtype would not be small.
    return torch.cat(
        [
            factors.to(dtype) @ block.to(dtype)
            for block in torch.split(sample, _BLOCK, dim=1)
        ]
    )


def _matrix(sample: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Per-record gradients as (records, values); half precision becomes the dtype of
    the parameter, so that norms hold."""
    return sample.reshape(len(sample), parameter.numel()).to(parameter.dtype)


@final
class StoredPart:
    """One parameter's per-record gradients, as they stand."""

    def __init__(
        self, parameter: torch.Tensor, sample: torch.Tensor, *, dtype: torch.dtype
    ) -> None:
        """``dtype`` is the least precision that the sum over records is taken in."""
        self._parameter = parameter
        self._sample = sample
        self._dtype = torch.promote_types(dtype, parameter.dtype)

    @property
    def rows(self) -> int:
        return len(self._sample)

    def squares(self) -> torch.Tensor:
        return _row_squares(_matrix(self._sample, self._parameter))

    def sums(self, factors: torch.Tensor) -> Sums:
        factors, sample = _entering(factors, _matrix(self._sample, self._parameter))
        yield self._parameter, _contracted(factors, sample, self._dtype)


@final
class SampledPart:
    """A layer of any kind: its per-record gradients are computed twice, for the norms
    and for the sum, so that only one layer's are in memory at a time."""

    def __init__(
        self, layer: nn.Module, inputs: Any, errors: torch.Tensor, *, sampler: Sampler
    ) -> None:
        """``sampler`` gives the per-record gradients, as Opacus' grad samplers do."""
        self._layer = layer
        self._inputs = inputs
        self._errors = errors
        self._sampler = sampler

    @property
    def rows(self) -> int:
        return len(self._errors)

    def _samples(self) -> Sums:
        given = self._sampler(self._layer, self._inputs, self._errors)
        for parameter, sample in given.items():
            if parameter.requires_grad:
                yield parameter, _matrix(sample, parameter)

    def squares(self) -> torch.Tensor:
        return torch.stack([_row_squares(s) for _, s in self._samples()]).sum(0)

    def sums(self, factors: torch.Tensor) -> Sums:
        for parameter, sample in self._samples():
            kept, rows = _entering(factors, sample)
            yield parameter, _contracted(kept, rows, torch.float64)


@final
class LinearPart:
    """A linear layer: for one position per record, |e|^2 |(h, 1)|^2 and (w E)^T [H, 1].

    Where a record has several positions (tokens), its gradient is the sum of their
    outer products, and the squared norm the sum of (e_s . e_t)(h_s . h_t) over pairs.
    """

    def __init__(
        self,
        layer: nn.Linear,
        inputs: torch.Tensor,
        errors: torch.Tensor,
        *,
        dtype: torch.dtype,
    ) -> None:
        """inputs, errors
            (records, ..., width) each
        dtype
            the least precision that the sum over records is taken in, for one position
            each; for more it is float64
        """
        self._layer = layer
        self._inputs = inputs
        self._errors = errors
        if errors.dim() > 2:
            dtype = torch.float64
        self._dtype = torch.promote_types(dtype, layer.weight.dtype)

    @property
    def rows(self) -> int:
        return len(self._errors)

    @property
    def _trained(self) -> tuple[bool, bool]:
        """Whether the weight is, and whether the bias."""
        bias = self._layer.bias
        return self._layer.weight.requires_grad, (
            bias is not None and bias.requires_grad
        )

    def squares(self) -> torch.Tensor:
        weight, bias = self._trained
        if self._errors.dim() == 2:
            kind = self._layer.weight.dtype
            inputs = _row_squares(self._inputs.to(kind)) if weight else 0.0
            return _row_squares(self._errors.to(kind)) * (inputs + float(bias))
        inputs, errors = (_by_position(t) for t in (self._inputs, self._errors))
        lengths = errors.norm(dim=2)
        squares = torch.zeros(self.rows, dtype=torch.float64, device=errors.device)
        if weight:
            positions, width = errors.shape[1:]
            if positions * positions <= width * inputs.shape[2]:
                pairs = (errors @ errors.mT) * (inputs @ inputs.mT)
                squares += pairs.sum((1, 2)).clamp(min=0)
            else:
                squares += (errors.mT @ inputs).square().sum((1, 2))
            squares += _hidden((lengths * inputs.norm(dim=2)).sum(1))
        if bias:
            squares += errors.sum(1).square().sum(1) + _hidden(lengths.sum(1))
        return squares

    def sums(self, factors: torch.Tensor) -> Sums:
        weight, bias = self._trained
        factors, inputs, errors = _entering(factors, self._inputs, self._errors)
        errors = errors.to(self._dtype) * factors.to(self._dtype).view(
            -1, *[1] * (errors.dim() - 1)
        )
        flat = errors.reshape(-1, errors.shape[-1])
        if weight:
            rows = inputs.to(self._dtype).reshape(-1, inputs.shape[-1])
            yield self._layer.weight, flat.T @ rows
        if bias:
            yield self._layer.bias, flat.sum(0)


@final
class EmbeddingPart:
    """A table of embeddings: a record's gradient has one row per token it holds."""

    def __init__(
        self, layer: nn.Embedding, tokens: torch.Tensor, errors: torch.Tensor
    ) -> None:
        """tokens
            (records, ...), row numbers of the table
        errors
            (records, ..., width)
        """
        self._layer = layer
        self._tokens = tokens
        self._errors = errors

    @property
    def rows(self) -> int:
        return len(self._errors)

    def squares(self) -> torch.Tensor:
        errors = _by_position(self._errors)
        tokens = self._tokens.reshape(self.rows, -1)
        record = torch.arange(self.rows, device=tokens.device)[:, None]
        # One number for each token of each record: a token that a record holds twice
        # has the sum of both errors as its gradient.
        place = (record * self._layer.num_embeddings + tokens).flatten()
        places, at = torch.unique(place, return_inverse=True)
        each = errors.new_zeros(len(places), errors.shape[2])
        each.index_add_(0, at, errors.flatten(0, 1))
        squares = errors.new_zeros(self.rows)
        squares.index_add_(
            0, places // self._layer.num_embeddings, each.square().sum(1)
        )
        return squares + _hidden(errors.norm(dim=2).sum(1))

    def sums(self, factors: torch.Tensor) -> Sums:
        factors, tokens, errors = _entering(factors, self._tokens, self._errors)
        errors = _by_position(errors) * factors[:, None, None]
        out = torch.zeros_like(self._layer.weight, dtype=torch.float64)
        out.index_add_(0, tokens.flatten(), errors.flatten(0, 1))
        yield self._layer.weight, out


def _by_position(rows: torch.Tensor) -> torch.Tensor:
    """(records, ..., width) as (records, positions, width), float64."""
    return rows.reshape(len(rows), -1, rows.shape[-1]).double()


def _hidden(lengths: torch.Tensor) -> torch.Tensor:
    """What the rounding of terms of these total lengths may hide, squared."""
    return (lengths * _CANCELLED).square()
