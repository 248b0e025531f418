"""A simulated GPU on a machine without one: real values, strict devices, and a count of launches and waits.

A `Simulated` tensor keeps its values on the CPU; torch's C++ sees a tensor subclass of the device meta, which needs no
driver, and Python code sees ``cuda:0``. Whole training steps run on it. What would go wrong on a GPU is found:

    a tensor of the host among those of the device      RuntimeError, as on CUDA, except for 0-dim ones
    a read (item, tolist, cpu, nonzero, a mask as index) noted as a wait: the host stands still until the device is done
    a blocking copy to the device (new_tensor, to)       noted as a wait: torch synchronizes the stream after it

An operation counts as one launch, where some are several kernels; views of memory and empty tensors as none. A
`torch._foreach` function is one launch where its lists have equal shapes, as many as tensors where they have not.
Copies of a few numbers that do not block are noted apart: the driver takes them from pageable memory into its queue.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import _python_dispatch
from torch.utils._pytree import tree_map

GPU, META, HOST = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
FROM_NUMBERS = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
READS = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten._linalg_check_errors.default,
    aten.repeat_interleave.Tensor,
    aten.multinomial.default,
}
READ_TAGS = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
NO_LAUNCH = {
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}


class Simulated(Tensor):
    """A tensor of the simulated device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Simulated:
        with torch.inference_mode(False):  # a tensor of that mode could not be wrapped
            made: Simulated = Tensor._make_wrapper_subclass(
                cls,
                values.shape,
                values.stride(),
                values.storage_offset(),
                dtype=values.dtype,
                device=META,
            )
        made.values = values
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "__get__":
            for prop, value in (
                (Tensor.device, GPU),
                (Tensor.is_cuda, True),
                (Tensor.is_meta, False),
            ):
                if func == prop.__get__:  # type: ignore[attr-defined]
                    return value
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _Device(Log()):  # what is left of it afterwards
            return func(*args, **(kwargs or {}))

    def __repr__(self, **_: Any) -> str:
        return f"Simulated({self.values!r})"


@dataclass
class Log:
    """What happened on the device.

    Args:
        waits: What the host waited for, with the line of the library that asked for it.
        uploads: Copies to the device that do not block, likewise.
        launches: Operations by the part of a step that they belong to, see `_part`.
        operations: The same by name.
    """

    waits: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    launches: Counter[str] = field(default_factory=Counter)
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)

    def clear(self) -> None:
        """Forget all of it."""
        self.waits.clear()
        self.uploads.clear()
        self.launches.clear()
        self.operations.clear()

    def launch(self, name: str, kernels: int = 1) -> None:
        """Count an operation."""
        part = _part()
        self.launches[part] += kernels
        self.operations[part, name] += kernels


class _Device(_python_dispatch.TorchDispatchMode):
    """Computes on the CPU whatever involves the device, and notes it."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in _leaves((args, kwargs)) if isinstance(x, Tensor)]
        theirs = [x for x in tensors if isinstance(x, Simulated)]
        target = kwargs.get("device")
        if not theirs and (target is None or target.type != "meta"):
            return func(*args, **kwargs)
        if func in COPIES:
            return self._copy(func, args, kwargs)
        if func.has_kernel_for_dispatch_key(COMPOSITE):  # whole in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        hosts = [x for x in tensors if not isinstance(x, Simulated)]
        if func in INDEXED:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype == torch.bool for x in indices):
                self._wait(func)
            if theirs and any(not isinstance(x, Simulated) for x in indices):
                self._wait("an index of the host")
            hosts = [x for x in hosts if all(x is not index for index in indices)]
        elif (func in READS or READ_TAGS & set(func.tags)) and "output_size" not in kwargs:
            self._wait(func)  # given the size of its output, repeat_interleave reads nothing
        if strangers := [x for x in hosts if x.dim()]:
            shapes = ", ".join(str(tuple(x.shape)) for x in strangers)
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu: {shapes}"
            )
        if not (func.is_view or func in NO_LAUNCH):
            self.log.launch(str(func), _kernels(func, args))
        return self._on_cpu(func, args, kwargs)

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Between host and device, or on the device."""
        if func is aten.copy_.default:
            to, source = args[0], args[1]
            blocking = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
            lands_here = isinstance(to, Simulated)
        else:
            source = args[0]
            blocking = not kwargs.get("non_blocking")
            device = kwargs.get("device")
            lands_here = isinstance(source, Simulated) if device is None else device.type == "meta"
        if not lands_here:
            self._wait("copy to the host")
        elif not isinstance(source, Simulated):
            if blocking:
                self._wait("blocking copy to the device")
            else:
                self.log.uploads.append(_line())
            self.log.launch("copy to the device")
        else:
            self.log.launch(str(func))
        result = self._on_cpu(func, args, kwargs)
        return result if lands_here else result.values if isinstance(result, Simulated) else result

    def _on_cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("device") is not None:
            kwargs["device"] = HOST
        known = {id(x.values): x for x in _leaves((args, kwargs)) if isinstance(x, Simulated)}
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs))

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else Simulated(x)

        return tree_map(wrapped, result)

    def _wait(self, what: Any) -> None:
        self.log.waits.append(f"{what} at {_line()}")


class _Names(TorchFunctionMode):
    """Says meta where Python says cuda."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.Module.to:
            args = tuple(_renamed(x, is_device=k == 1) for k, x in enumerate(args))
            kwargs = {name: _renamed(x, is_device=name == "device") for name, x in kwargs.items()}
        if func in FROM_NUMBERS:  # made on the host and copied by C++, where no mode looks
            like = args[0] if func is Tensor.new_tensor else None
            device = kwargs.pop("device", None) or (META if isinstance(like, Simulated) else HOST)
            if like is not None:
                kwargs.setdefault("dtype", like.dtype)
            numbers = torch.tensor(*args[like is not None :], **kwargs)
            return numbers.to(device)
        return func(*args, **kwargs)


def _renamed(x: Any, *, is_device: bool) -> Any:
    if isinstance(x, torch.device) and x.type == "cuda":
        return META
    return META if is_device and isinstance(x, str) and x.startswith("cuda") else x


class _Generator(torch.Generator):
    """Random numbers of the device, which come from the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls)


_apply = BackwardCFunction.apply


def _backward(function: Any, *grads: Any) -> Any:
    """The backward pass of a function in Python, which torch runs without the modes that say cuda."""
    with torch._C._EnableTorchFunction(), _Names():
        return _apply(function, *grads)


@contextmanager
def simulated_gpu() -> Iterator[Log]:
    """``torch.device("cuda")`` works inside, and what happens on it is logged."""
    log = Log()
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(BackwardCFunction, "apply", _backward))
        stack.enter_context(
            mock.patch.object(
                clip_grad, "_has_foreach_support", lambda _, device: device.type != "cpu"
            )
        )
        if find_spec("triton"):
            stack.enter_context(_interpreted_kernels(log))
        try:
            # Parameters stay the objects that they are when a module moves, as between CPU and CUDA.
            torch.__future__.set_swap_module_params_on_conversion(True)
            with _Device(log), _Names():
                yield log
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)


def _interpreted_kernels(log: Log) -> Any:
    """Triton's interpreter takes tensors of the device, and no others."""
    from triton.runtime.interpreter import GridExecutor

    run = GridExecutor.__call__

    def launched(kernel: Any, *args: Any, **kwargs: Any) -> None:
        strangers = [x for x in (*args, *kwargs.values()) if type(x) is Tensor]
        if strangers:
            raise ValueError("pointer argument cannot be accessed from Triton (cpu tensor?)")
        log.launch(kernel.fn.__name__)
        run(kernel, *map(_values, args), **{name: _values(x) for name, x in kwargs.items()})

    return mock.patch.object(GridExecutor, "__call__", launched)


def on_gpu(accelerator: Accelerator) -> Accelerator:
    """An accelerator of one process on the simulated device."""
    for state in (PartialState(), accelerator.state):  # the second is updated from the first
        state.device = torch.device("cuda")
    return accelerator


def _kernels(func: Any, args: Any) -> int:
    """1; for lists of tensors that differ in shape or memory format, which no kernel takes together, their number."""
    lists = [x for x in args if isinstance(x, list) and x and isinstance(x[0], Tensor)]
    if not str(func).startswith("aten._foreach"):
        return 1
    layouts = [[(x.shape, x.stride()) for x in tensors] for tensors in lists]
    return 1 if all(one == layouts[0] for one in layouts) else len(layouts[0])


def _leaves(tree: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(tree)


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Simulated) else x


def _library_frames() -> Iterator[Any]:
    """Frames from the innermost one on, those of this file left out."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _line() -> str:
    """The line of the library that is being executed."""
    for frame in _library_frames():
        if "/falcon_ssl/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.split('/falcon_ssl/')[1]}:{frame.f_lineno}"
    return "outside of the library"


def _part() -> str:
    """Which part of a step is being executed: views, loss, backward, clip, optimizer, follow or network."""
    for frame in _library_frames():
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if "clip_grad" in path:
            return "clip"
        if "/torch/optim/" in path or path.endswith(("engine/lars.py", "engine/muon.py")):
            return "optimizer"
        if "/falcon_ssl/views/" in path:
            return "views"
        if path.endswith("engine/finite.py"):
            return "check"
        if "/falcon_ssl/losses/" in path:
            return "loss" if not _is_backward(frame) else "backward"
        if "/accelerate/" in path and name == "backward":
            return "backward"
        if name in ("after_step", "after_backward") and "/falcon_ssl/methods/" in path:
            return "hooks"
    return "network"


def _is_backward(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "backward" and "/accelerate/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
