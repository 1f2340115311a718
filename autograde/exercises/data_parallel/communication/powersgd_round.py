"""`powersgd_round(matrix, q, residual)`: The ranks' mean of a matrix as a product of two narrow ones, PowerSGD."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, PerRank, case, same
from autograde.exercises.data_parallel.communication.shared import gathered, mean_over_ranks, other_calls
from autograde.exercises.data_parallel.shared import agree_by_entry, bytes_of
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import rebuild

exercise = Draft(
    "powersgd_round",
    points=5,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    forbid=["torch.distributed.algorithms"],
    hints=[
        "Two products, each followed by an all-reduce of what is narrow: first M q, then Mᵀ p.",
        "M = matrix + residual; p is the mean of M @ q over the ranks, made orthonormal by every rank "
        "in the same way (torch.linalg.qr); the new q is the mean of M.T @ p.",
        "p = torch.linalg.qr(mean(M @ q)).Q; q = mean(M.T @ p); approximation = p @ q.T; residual = M - approximation. "
        "mean(x): all_reduce on a copy, divided by the number of ranks.",
    ],
)


@exercise.cases
def matrix_cases(g):
    def some(world, rows, columns, rank, label, scale=1.0, first=False):
        shared = randn(g, rows, columns)  # the ranks' gradients have something in common, as real ones do
        matrix = scale * (shared + randn(g, world, rows, columns))
        residual = torch.zeros_like(matrix) if first else scale * randn(g, world, rows, columns)
        return case(matrix, randn(g, columns, rank), residual, ranks=world, label=label)

    n, m = pick(g, 5, 7), pick(g, 8, 10)
    yield some(2, n, m, 2, "rank 2, a wide matrix")
    yield some(3, m, n, 1, "rank 1, a tall matrix, three ranks")
    yield some(4, n, n + 2, 3, "rank 3, four ranks, small numbers", scale=0.01)
    yield some(2, m, n, 2, "the first step: nothing is left over yet", first=True)
    zeros = torch.zeros(2, n, m)
    yield case(zeros, randn(g, m, 2), zeros, ranks=2, label="a gradient of zeros")
    yield some(2, 1, m, 1, "a matrix of one row")


class _Together:
    """A process group that stands for `n` ranks with equal tensors: what they hold is their mean already."""

    def __init__(self, n):
        self.n = n

    def size(self):
        return self.n

    def allreduce(self, tensors, options):
        done = torch.futures.Future()
        done.set_result([t.mul_(self.n) for t in tensors])
        return _Done(done)


class _Done:
    def __init__(self, future):
        self.future = future

    def get_future(self):
        return self.future


class _Bucket:
    """A gradient of one matrix, as DistributedDataParallel hands it to a hook."""

    def __init__(self, matrix):
        self.flat = matrix.flatten().clone()
        self.matrix = self.flat.view(matrix.shape)

    def buffer(self):
        return self.flat

    def gradients(self):
        return [self.matrix]

    def index(self):
        return 0

    def is_last(self):
        return True


@exercise.oracle
def torch_hook(matrix, q, residual):
    """torch's own hook, on the mean over ranks: but for the residuals, all that it computes is linear in the matrix."""
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

    n, rank = len(matrix), q.shape[1]
    options = {"start_powerSGD_iter": 2, "min_compression_rate": 0, "orthogonalization_epsilon": 1e-30}
    state = PowerSGDState(_Together(n), rank, **options)
    state.iter = 2
    state.error_dict[0] = residual.mean(0).flatten()
    state.p_memory_dict[0] = torch.empty(matrix.shape[1] * rank, dtype=matrix.dtype)
    state.q_memory_dict[0] = q.flatten().clone()
    found = powerSGD_hook(state, _Bucket(matrix.mean(0))).wait().view(matrix.shape[1:])
    after = state.q_memory_dict[0].view(q.shape)
    left = matrix + residual - found
    return [{"approximation": found, "residual": one, "q qᵀ": after @ after.T} for one in left]


@exercise.probe
def round_on_rank(function, matrix, q, residual):
    """Rank r has matrix[r] and residual[r]. The columns of p may be turned, and then those of q are: q qᵀ isn't."""
    import torch.distributed as dist

    rank = dist.get_rank()
    found, after, left = function(matrix[rank], q, residual[rank])
    told = {"approximation": found, "residual": left, "q qᵀ": after @ after.T}
    return told | {"kept": [tuple(after.shape), [str(x.dtype) for x in (found, after, left)]]}


# entries of q qᵀ of size 10 cancel to nearly 0, and in float32 a few millionths are left
_agree = agree_by_entry(["approximation", "residual", "q qᵀ"], torch_hook, atol=2e-5)


@exercise.agrees
def _agrees(expected, got, one):
    """A mistake that gives NaN is recognized by its NaN."""
    if isinstance(expected, PerRank) and isinstance(got, list):
        expected, got = (PerRank(rebuild(list(x), lambda t: t.nan_to_num(nan=1e9))) for x in (expected, got))
    return _agree(expected, got, one)


@exercise.law("Two all-reduces: rows × r numbers, then columns × r", essential=True)
def _two_narrow_messages(out, one, call):
    if told := other_calls(out, ["all_reduce"]):
        return told
    matrix, q, _ = one.args
    need = sorted(bytes_of([matrix[0] @ q, q]))
    for r, messages in enumerate(out.traffic):
        sent = sorted(m.bytes for m in messages)
        if sent != need:
            return f"{one.label}: rank {r} sends {sent or 'no'} bytes; the two narrow matrices have {need}"
    return True


@exercise.law("What was sent and what stays behind add up to what was there")
def _nothing_lost(out, one, call):
    matrix, _, residual = one.args
    scale = max(1e-6, float(matrix.abs().max()))
    told = out[0]["approximation"] + sum(r["residual"] for r in out) / len(out)
    return same((matrix + residual).mean(0) / scale, told / scale) or "mean plus mean residual is another sum"


@exercise.law("q keeps its shape, and everything the matrix's dtype")
def _keeps(out, one, call):
    need = [tuple(one.args[1].shape), [str(one.args[0].dtype)] * 3]
    return all(r["kept"] == need for r in out)


def _orthonormal(p):
    return torch.linalg.qr(p).Q


def _gram_schmidt(p):
    """Column by column, as the paper does it; a column of zeros stays one."""
    columns = []
    for c in p.unbind(1):
        for done in columns:
            c = c - (done @ c) * done
        columns.append(c / c.norm() if c.norm() > 0 else c)
    return torch.stack(columns, 1)


def _round(m, q, p_mean=mean_over_ranks, straight=_orthonormal, q_mean=mean_over_ranks):
    """Right as it stands, with m = matrix + residual; a mistake replaces a part."""
    p = straight(p_mean(m @ q))
    after = q_mean(m.T @ p)
    return p @ after.T, after, m - p @ after.T


@exercise.alternative
def powersgd_by_qr(matrix, q, residual):
    """Right: QR makes the columns orthonormal."""
    return _round(matrix + residual, q)


@exercise.alternative
def powersgd_by_gram_schmidt(matrix, q, residual):
    """Right: as torch does it at low rank, with q made orthonormal first."""
    return _round(matrix + residual, _gram_schmidt(q), straight=_gram_schmidt)


@exercise.alternative
def powersgd_by_svd(matrix, q, residual):
    """Right: any orthonormal basis of the columns will do, here from a singular value decomposition."""
    return _round(matrix + residual, q, straight=lambda p: torch.linalg.svd(p, full_matrices=False).U)


@exercise.mistake(
    "p is not made orthonormal",
    hint="p pᵀ M projects only where p's columns are orthonormal: QR, on every rank.",
)
def powersgd_not_straight(matrix, q, residual):
    return _round(matrix + residual, q, straight=lambda p: p)


@exercise.mistake(
    "the columns of p are scaled to length 1 but not made orthogonal",
    hint="Unit length isn't enough: the columns must stand at right angles, else what they share counts twice.",
)
def powersgd_only_normed(matrix, q, residual):
    return _round(matrix + residual, q, straight=lambda p: p / p.norm(dim=0).clamp(min=1e-30))


@exercise.mistake(
    "each rank makes its own p orthonormal before the all-reduce",
    hint="A mean of orthonormal matrices isn't orthonormal. Average first, then QR on every rank.",
)
def powersgd_straight_too_early(matrix, q, residual):
    return _round(matrix + residual, q, p_mean=lambda p: mean_over_ranks(_orthonormal(p)), straight=lambda p: p)


@exercise.mistake(
    "p is not averaged: each rank projects on a basis of its own",
    hint="q can only be averaged where all ranks have the same p: all_reduce it first.",
)
def powersgd_own_p(matrix, q, residual):
    return _round(matrix + residual, q, p_mean=lambda p: p)


@exercise.mistake("q is not averaged", hint="Mᵀ p is this rank's own: the second all-reduce.")
def powersgd_own_q(matrix, q, residual):
    return _round(matrix + residual, q, q_mean=lambda q: q)


def _total(x):
    return mean_over_ranks(x) * dist.get_world_size()


@exercise.mistake(
    "q is summed over the ranks, not averaged",
    hint="p's length is lost in the QR, so there a sum will do. q's isn't: divide by the number of ranks.",
)
def powersgd_sums(matrix, q, residual):
    return _round(matrix + residual, q, q_mean=_total)


@exercise.mistake(
    "the residual of earlier steps is never added", hint="Start from matrix + residual, in both products."
)
def powersgd_forgets_residual(matrix, q, residual):
    return _round(matrix, q)


@exercise.mistake(
    "the new residual leaves out what had stayed behind before",
    hint="residual = (matrix + old residual) - approximation.",
)
def powersgd_drops_the_old(matrix, q, residual):
    found, after, _ = _round(matrix + residual, q)
    return found, after, matrix - found


@exercise.mistake("no residual is kept: zeros come back", hint="M minus the approximation waits for the next step.")
def powersgd_without_feedback(matrix, q, residual):
    found, after, left = _round(matrix + residual, q)
    return found, after, torch.zeros_like(left)


@exercise.mistake(
    "the residual is what this rank's own factors miss, not what the mean's do",
    hint="Everybody applies the same approximation, so each rank's residual is M minus that one.",
)
def powersgd_residual_of_own(matrix, q, residual):
    m = matrix + residual
    p = _orthonormal(mean_over_ranks(m @ q))
    own = m.T @ p
    after = mean_over_ranks(own)
    return p @ after.T, after, m - p @ own.T


@exercise.mistake(
    "the old q comes back, so that the next round starts anew",
    hint="The new q is this round's Mᵀ p: with it the next round is one more power iteration.",
)
def powersgd_cold_start(matrix, q, residual):
    found, _, left = _round(matrix + residual, q)
    return found, q.clone(), left


@exercise.mistake("p comes back in the place of q", hint="The next round starts with q, [columns, r].")
def powersgd_gives_p(matrix, q, residual):
    m = matrix + residual
    p = _orthonormal(mean_over_ranks(m @ q))
    after = mean_over_ranks(m.T @ p)
    return p @ after.T, p, m - p @ after.T


@exercise.mistake(
    "the new q is made orthonormal before it comes back",
    hint="It would do as a start of the next round, but p @ q.T is the approximation only as long as q has its length.",
)
def powersgd_straight_q(matrix, q, residual):
    found, after, left = _round(matrix + residual, q)
    return found, _orthonormal(after), left


@exercise.mistake(
    "q is made orthonormal before it is multiplied with p",
    hint="Only p loses its length: q = mean(M.T @ p) holds the sizes, and p @ q.T needs them.",
)
def powersgd_straight_both(matrix, q, residual):
    return _round(matrix + residual, q, q_mean=lambda q: _orthonormal(mean_over_ranks(q)))


@exercise.mistake(
    "the residual that came in comes back", hint="The new residual is M minus the approximation, M = matrix + residual."
)
def powersgd_keeps_residual(matrix, q, residual):
    found, after, _ = _round(matrix + residual, q)
    return found, after, residual.clone()


def _projects_too_much(p):
    columns = []
    for c in p.unbind(1):
        for done in columns:
            c = c - (done @ c) * done
        columns.append(c)
    straight = torch.stack(columns, 1)
    return straight / straight.norm(dim=0).clamp(min=1e-30)


@exercise.mistake(
    "columns are projected on others that don't have length 1 yet, so that they end up at no right angle",
    hint="c - (b @ c) * b takes away what c has of b only if b has length 1: divide each column by its norm first.",
)
def powersgd_projects_too_much(matrix, q, residual):
    return _round(matrix + residual, q, straight=_projects_too_much)


@exercise.mistake(
    "the old q is multiplied with p, not the new one", hint="approximation = p @ (new q).T; q was only a start."
)
def powersgd_old_q(matrix, q, residual):
    m = matrix + residual
    p = _orthonormal(mean_over_ranks(m @ q))
    after = mean_over_ranks(m.T @ p)
    return p @ q.T, after, m - p @ q.T


@exercise.mistake(
    "the whole matrix is averaged before it is cut down: right numbers, and nothing saved",
    hint="Only M q and Mᵀ p may travel: rows × r and columns × r numbers.",
)
def powersgd_of_the_mean(matrix, q, residual):
    m = matrix + residual
    whole = mean_over_ranks(m)
    p = _orthonormal(whole @ q)
    return p @ (p.T @ whole), whole.T @ p, m - p @ (p.T @ whole)


@exercise.mistake(
    "the narrow matrices are gathered instead of all-reduced, which grows with the number of ranks",
    hint="Sums are all that is needed, and all_reduce adds on the way.",
)
def powersgd_gathers(matrix, q, residual):
    def mean(x):
        return torch.stack(gathered(x)).mean(0)

    return _round(matrix + residual, q, p_mean=mean, q_mean=mean)


@exercise.mistake(
    "a matrix of zeros gives NaN: 0 / 0 where a column is scaled to length 1",
    hint="torch.linalg.qr has no trouble with zeros. By hand, put a unit vector where a column has length 0: with "
    "zeros there, q would be 0 in every later round, too.",
)
def powersgd_nan_of_zeros(matrix, q, residual):
    def divide(p):
        straight = _orthonormal(p)
        return straight if p.any() else p / p.norm(dim=0)

    return _round(matrix + residual, q, straight=divide)
