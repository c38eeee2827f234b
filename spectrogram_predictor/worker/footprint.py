"""How many weights a model has and how many numbers it holds at a time, from its configuration alone.

Follows the graph as Keras does, in both of its dialects: where a model is in another, where a layer is called
twice, where a layer wraps another. Never imports Keras.
"""

from dataclasses import dataclass
from typing import Any

from spectrogram_predictor.errors import Unprocessable
from spectrogram_predictor.worker import layers, nodes, operations, stated
from spectrogram_predictor.worker.compatibility import called
from spectrogram_predictor.worker.nodes import Constant, Node, Operand, Reference
from spectrogram_predictor.worker.schedule import Schedule
from spectrogram_predictor.worker.shapes import Config, Made, Part, Shape, broadcast, size

MAX_CALLS = 3_000
"""Most calls of layers in a model, those inside of others included."""

MAX_OUTPUTS = 4 * MAX_CALLS
"""Most outputs of all these calls: each is looked at beside each other."""

MAX_STEPS = 4 * layers.MAX_UNROLLED
"""Most calls that Keras makes step by step, for all layers together."""

_PAIR = 2

_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Footprint:
    """What a model takes.

    Parameters
    ----------
    weights : int
        Numbers that it keeps.
    peak : int
        Most numbers that it holds beside at a time, for one window of a song.
    """

    weights: int
    peak: int


@dataclass(frozen=True)
class _Ran:
    """A part of a model, called: None or `_AtLeast` where the shapes are not known."""

    outputs: list[Shape | None]
    weights: int
    peak: int


class _AtLeast(tuple[int, ...]):
    """A shape behind a layer's own code, of which all that is known is that no size is below these."""

    __slots__ = ()


def measure(model: Part) -> Footprint:
    """Measure a model by its configuration.

    Parameters
    ----------
    model : mapping
        With ``class_name`` and ``config``, as a file has it.

    Raises
    ------
    Unprocessable
        The size of one of its layers cannot be told.
    """
    try:
        run = _Run()
        ran = run.call(model, [])
        run.check_calls()
    except _FAULTS as error:
        raise Unprocessable(f"the model's layers cannot be followed: {_said(error)}") from error
    return Footprint(ran.weights, ran.peak)


class _Run:
    """A model's one way from its inputs to its outputs."""

    def __init__(self) -> None:
        self._calls = 0
        self._outputs = 0
        self._steps = 0

    def call(self, part: Part, given: list[Shape | None]) -> _Ran:
        """Return what comes of calling a layer, or a model; with nothing given, of building it."""
        ran = self._called(part, given)
        self._count_outputs(len(ran.outputs))
        for shapes in stated.built_for(part):
            # It may be built for something else than it is called with.
            if not _known(given) or [one[1:] for one in shapes] != [one[1:] for one in given if one]:
                built = self._called(part, [*shapes])
                outputs = ran.outputs if _known(ran.outputs) else built.outputs or ran.outputs
                # Building makes weights, and nothing of what they are for.
                peak = ran.peak if _known(given) else max(ran.peak, built.peak)
                ran = _Ran(outputs, max(ran.weights, built.weights), peak)
        return ran

    def check_calls(self) -> None:
        """Look that there were not too many calls."""
        if self._calls > MAX_CALLS:
            raise Unprocessable(f"the model calls its layers more than {MAX_CALLS} times")

    def _called(self, part: Part, given: list[Shape | None]) -> _Ran:
        self._calls += 1
        self.check_calls()
        try:
            if part["class_name"] in ("Functional", "Model"):
                return _Graph(self, part).run(given)
            if part["class_name"] in ("Sequential", "Pipeline"):
                return self._one_by_one(part["config"]["layers"], given)
            return self._layer(part, given)
        except _FAULTS as error:
            raise Unprocessable(f"{called(part)} is of a size that cannot be told: {_said(error)}") from error

    def _layer(self, part: Part, given: list[Any]) -> _Ran:
        if not given:
            return _Ran([], 0, 0)
        if part["class_name"] == "Lambda":
            made = stated.by_code(part["config"], given)
            return _Ran([made], 0, size(made) if made else 0)
        return self._measured(part, given) if _known(given) else self._at_least(part, given)

    def _at_least(self, part: Part, given: list[Shape | None]) -> _Ran:
        """Return what comes of a layer behind code at the least: on what has no more numbers than it must."""
        for rank in (None, 2, 3, 4, 5):
            try:
                ran = self._measured(part, [_least(one, rank) for one in given])
            except (Unprocessable, *_FAULTS):
                # It takes what has more axes.
                continue
            return _Ran([shape and _AtLeast(shape) for shape in ran.outputs], ran.weights, ran.peak)
        return _Ran([None], 0, 0)

    def _measured(self, part: Part, given: list[Any]) -> _Ran:
        name, config = part["class_name"], part["config"]
        if name == "InputLayer":
            return _Ran(list(given), 0, 0)
        if name in _WRAPPERS:
            return _WRAPPERS[name](self, config, given)
        rule = operations.rule_of(name) if nodes.is_operation(part) else layers.RULES.get(name)
        if rule is None:
            raise ValueError("nothing is known of this class")
        made = rule(config, given)
        if config.get("unroll"):
            self._count_steps(given[0][1])
        return _Ran(list(made.outputs), *_checked(made, given))

    def _one_by_one(self, inner: list[Part], given: list[Shape | None]) -> _Ran:
        weights = peak = 0
        if inner and (first := stated.input_of(inner[0], given[0] if given else None)):
            # Files of Keras 2 say it of other layers too, and mean nothing by it.
            given = [first]
        for layer in inner:
            ran = self.call(layer, given)
            given, weights, peak = ran.outputs, weights + ran.weights, max(peak, ran.peak)
        return _Ran(given, weights, peak)

    def _each_step(self, config: Config, given: list[Any]) -> _Ran:
        batch, steps, *rest = given[0]
        ran = self._repeated(config["layer"], steps, (batch * steps, *rest))
        outputs = [shape and (batch, steps, *shape[1:]) for shape in ran.outputs]
        return _Ran(outputs, ran.weights, ran.peak)

    def _repeated(self, part: Part, steps: int, given: Shape) -> _Ran:
        """Return what comes of a layer that Keras calls for each step by itself."""
        if steps > layers.MAX_UNROLLED:
            raise ValueError(f"{steps} steps are unrolled")
        before = self._calls + self._steps
        ran = self.call(part, [given])
        self._count_steps(steps * (self._calls + self._steps - before))
        return ran

    def _count_outputs(self, outputs: int) -> None:
        self._outputs += outputs
        if self._outputs > MAX_OUTPUTS:
            raise Unprocessable(f"the model's layers have more than {MAX_OUTPUTS} outputs")

    def _count_steps(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise Unprocessable(f"the model calls its layers step by step, more than {MAX_STEPS} times")

    def _both_ways(self, config: Config, given: list[Any]) -> _Ran:
        forward = self.call(config["layer"], given)
        backward = self.call(config.get("backward_layer") or config["layer"], given)
        first, *states = forward.outputs
        mode, other = config.get("merge_mode", "concat"), backward.outputs[0]
        if mode == "concat" and first and other:
            first = (*first[:-1], first[-1] + other[-1])
        outputs = [first] if mode else [first, other]
        return _Ran([*outputs, *states, *states], forward.weights + backward.weights, forward.peak + backward.peak)

    def _wrapped(self, config: Config, given: list[Any]) -> _Ran:
        ran = self.call(config["layer"], given)
        return _Ran(
            ran.outputs, ran.weights + max((shape[-1] for shape in ran.outputs if shape), default=0), ran.peak
        )

    def _steps_of_a_cell(self, config: Config, given: list[Any]) -> _Ran:
        batch, steps, *rest = given[0]
        ran = self._repeated(config["cell"], steps if config.get("unroll") else 0, (batch, *rest))
        state = ran.outputs[0]
        states = 2 * len(config["cell"]["config"].get("cells", [0]))
        outputs = [None] if state is None else layers.sequence(config, batch, steps, state[1:], states)
        return _Ran(list(outputs), ran.weights, ran.peak + sum(size(one) for one in outputs if one))

    def _stacked_cells(self, config: Config, given: list[Any]) -> _Ran:
        return self._one_by_one(config["cells"], given)


_WRAPPERS = {
    "Bidirectional": _Run._both_ways,
    "RNN": _Run._steps_of_a_cell,
    "SpectralNormalization": _Run._wrapped,
    "StackedRNNCells": _Run._stacked_cells,
    "TimeDistributed": _Run._each_step,
}


class _Graph:
    """A functional model: its layers by name, and the calls of each."""

    def __init__(self, run: _Run, part: Part) -> None:
        self._run = run
        self._part = part
        config = part["config"]
        self._layers = {_graph_name(layer): layer for layer in config["layers"]}
        if len(self._layers) < len(config["layers"]):
            raise Unprocessable(f"{called(part)} has two layers of one name")
        self._made: dict[str, list[list[Shape | None]]] = {name: [] for name in self._layers}
        self._weights = dict.fromkeys(self._layers, 0)
        self._outputs = nodes.references(config["output_layers"])
        self._schedule = Schedule()
        self._calls: dict[str, list[int | None]] = {name: [] for name in self._layers}

    def run(self, given: list[Shape | None]) -> _Ran:
        inputs = nodes.references(self._part["config"]["input_layers"])
        taken = dict(zip((name for name, _, _ in inputs), given, strict=False))
        waiting: list[tuple[str, Node]] = []
        for name, layer in self._layers.items():
            calls = [nodes.read(layer, node) for node in layer.get("inbound_nodes") or []]
            if layer["class_name"] == "InputLayer":
                self._made[name] = [[stated.input_of(layer, taken.get(name))]]
                # It belongs to the caller.
                self._calls[name] = [None]
            elif layer["class_name"] in ("Functional", "Model") or not calls:
                # A functional model has its own inputs' outputs as its first; what is not called may be built.
                self._keep(name, self._run.call(layer, []), None)
            waiting += [(name, node) for node in calls]
        if len(waiting) > MAX_CALLS:
            raise Unprocessable(f"the model calls its layers more than {MAX_CALLS} times")
        self._work_off(waiting)
        for reference in self._outputs:
            self._schedule.keep(self._place(reference))
        outputs = [self._shape(reference) for reference in self._outputs]
        # Its inputs belong to the caller, who holds them meanwhile.
        held = sum(_numbers(self._shape(reference)) for reference in inputs)
        return _Ran(outputs, sum(self._weights.values()), held + self._schedule.peak())

    def _work_off(self, waiting: list[tuple[str, Node]]) -> None:
        while waiting:
            later, blocked = [], set()
            for name, node in waiting:
                if name in blocked or not all(self._is_made(reference) for reference in node.references):
                    later.append((name, node))
                    blocked.add(name)
                else:
                    self._perform(name, node)
            if len(later) == len(waiting):
                raise Unprocessable(f"{called(self._layers[later[0][0]])} takes what no other layer makes")
            waiting = later

    def _perform(self, name: str, node: Node) -> None:
        given = [self._operand(one) for one in node.operands]
        layer = {**node.layer, "config": {**node.layer["config"], **node.extra}} if node.extra else node.layer
        ran = self._run.call(layer, given)
        beside = _stretched([*given, *ran.outputs], [self._operand(one) for one in node.beside])
        self._keep(name, ran, self._schedule_call(node, given, ran, beside))

    def _schedule_call(self, node: Node, given: list[Shape | None], ran: _Ran, beside: int) -> int:
        outputs, places = [*map(_numbers, ran.outputs)], [self._place(one) for one in node.references]
        graph, pair = _is_graph(node.layer), len(places) <= _PAIR and not node.beside
        within = ran.peak - sum(outputs) - sum(map(_numbers, given))
        return self._schedule.add(
            places,
            outputs,
            max(0, within) + beside,
            at_once=node.layer["class_name"] == "Concatenate" or (pair and _is_merge(node.layer)),
            whole=len(outputs) == 1 and not (graph and len(places) > 1),
        )

    def _keep(self, name: str, ran: _Ran, call: int | None) -> None:
        self._made[name].append(ran.outputs)
        self._calls[name].append(call)
        self._weights[name] = max(self._weights[name], ran.weights)

    def _place(self, reference: Reference) -> tuple[int | None, int]:
        """Return which call makes an output, and which of its outputs it is."""
        name, call, index = reference
        return self._calls[name][call], index

    def _is_made(self, reference: Reference) -> bool:
        name, call, _ = reference
        if name not in self._made:
            raise Unprocessable(f"the model has no layer {name[:80]!r}, and another takes what it makes")
        return call < len(self._made[name])

    def _operand(self, operand: Operand) -> Shape | None:
        return operand.shape if isinstance(operand, Constant) else self._shape(operand)

    def _shape(self, reference: Reference) -> Shape | None:
        name, call, index = reference
        outputs = self._made[name][call]
        return outputs[index] if outputs != [None] else None


def _graph_name(layer: Part) -> str:
    name = layer.get("name") or layer["config"].get("name")
    if not isinstance(name, str):
        raise Unprocessable(f"{called(layer)} has no name")
    return name


def _checked(made: Made, given: list[Shape]) -> tuple[int, int]:
    """Return the weights and the numbers held in one call, having looked that none is below zero."""
    shapes = [*given, *made.outputs]
    sizes = [size(shape) for shape in shapes]
    if min([made.weights, made.scratch, *(n for shape in shapes for n in shape)]) < 0:
        raise ValueError("a size below zero")
    return made.weights, sum(sizes) + made.scratch


def _stretched(shapes: list[Shape | None], beside: list[Shape | None]) -> int:
    """Return how many numbers there are of what a call is about, when masks and the like are laid over it."""
    pairs = [(one, other) for one in shapes if one for other in beside if other]
    return sum(size(broadcast(pair)) for pair in pairs)


def _numbers(shape: Shape | None) -> int:
    return size(shape) if shape else 0


def _is_graph(part: Part) -> bool:
    """Tell whether something of it may be over before all that it takes is there."""
    return part["class_name"] not in layers.RULES and not nodes.is_operation(part)


def _is_merge(part: Part) -> bool:
    return layers.RULES.get(part["class_name"]) is layers.merge or nodes.is_operation(part)


def _known(shapes: list[Shape | None]) -> bool:
    return bool(shapes) and not any(shape is None or isinstance(shape, _AtLeast) for shape in shapes)


def _least(shape: Shape | None, rank: int | None) -> Shape:
    """Return the smallest shape of so many axes that one may be, of which not everything is known."""
    if shape is None:
        return (1,) * (rank or 2)
    if rank is None or rank == len(shape) or not isinstance(shape, _AtLeast):
        return tuple(shape)
    return (*((1,) * (rank - 1)), shape[-1])


def _said(error: Exception) -> str:
    return f"{type(error).__name__} {error}"[:120]
