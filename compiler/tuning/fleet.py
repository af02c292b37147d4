"""Workers on many machines, over Ray (the extra ``ray``): ``aisc tune --workers ray://HOST:PORT``.

On every node of the cluster sits a *post*, an actor that keeps processes like those of a single
machine and passes requests on to them, so that a candidate which crashes takes nothing else along.
A post tells the machine that it has found: code is made anywhere, measured only on machines of the
target. A node that goes away on the way costs nothing: what it had begun is given to another.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from aisc.driver.api import resolve_target
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.tuning.bench import Workshop
from aisc.tuning.workers import MAKER, RUNNER, Reply, Request, Worker

ADDRESS = "ray://"
# Seconds until a post must have told what it is.
GREETING = 120.0


class Post:
    """A process of a node, as Ray runs it: it keeps a worker, and tells the machine it is on."""

    def __init__(self, kind: str) -> None:
        command = MAKER if kind == "maker" else RUNNER
        self.worker = Worker(command)

    def about(self) -> dict[str, Any]:
        """The key of the machine's target."""
        return {"target": resolve_target("cpu").key}

    def ask(self, request: dict[str, Any]) -> Reply:
        """What the worker replies."""
        return self.worker.ask(request)


@dataclass(slots=True)
class RemoteWorker:
    """A post as workers are used. `gone` once its node cannot be reached any more."""

    actor: Any
    ray: Any
    restarts: int = 0
    gone: bool = False
    _pending: Any = None

    def begin(self, request: Request) -> None:
        """Give it a request."""
        self._pending = self.actor.ask.remote(dict(request))

    def poll(self) -> Reply | None:
        """The reply, if there is one by now."""
        done, _ = self.ray.wait([self._pending], timeout=0)
        if not done:
            return None
        try:
            reply: Reply = self.ray.get(self._pending)
        except self.ray.exceptions.RayError as fault:
            self.gone = True
            return {"error": f"the node is gone: {fault}", "gone": True}
        self.restarts += bool(reply.get("lost"))
        return reply

    def ask(self, request: Request) -> Reply:
        """The reply to a request, waited for."""
        self.begin(request)
        self.ray.wait([self._pending])
        reply = self.poll()
        assert reply is not None, "it was waited for"
        return reply

    def close(self) -> None:
        """End it."""
        if not self.gone:
            self.ray.kill(self.actor)


def connect(address: str) -> Any:
    """The library, connected to a cluster: ``ray://HOST:PORT``, or ``ray://`` for the one of this
    machine; E401 where that is not possible."""
    if not address.startswith(ADDRESS):
        raise error("E401", f"workers are not found at '{address}'", "expected ray://HOST:PORT")
    if find_spec("ray") is None:
        raise error("E401", "Ray is not installed", "pip install 'aisc[ray]'")
    import ray

    try:
        place = address if address != ADDRESS else "auto"
        ray.init(address=place, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as fault:
        raise error("E401", f"there is no cluster at {address}", str(fault)) from None
    return ray


def fleet(address: str, target: str, key: str, threads: int) -> Workshop:
    """The processes of a cluster: one maker for each core, a runner on each node of the target.
    E402 where no node is one."""
    ray = connect(address)
    makers, runners = [], []
    for node in (n for n in ray.nodes() if n["Alive"]):
        cores = max(1, int(node["Resources"].get("CPU", 1)))
        makers += [_post(ray, node["NodeID"], "maker") for _ in range(cores)]
        runners.append(_post(ray, node["NodeID"], "runner"))
    fitting = [w for w in runners if _target_of(w) == key]
    for w in runners:
        if w not in fitting:
            w.close()
    if not fitting:
        raise error("E402", "no node of the cluster is a machine of the target", f"wanted: {key}")
    return Workshop(makers, fitting, target, threads)


def _post(ray: Any, node: str, kind: str) -> RemoteWorker:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    actor = ray.remote(num_cpus=0)(Post)
    return RemoteWorker(actor.options(scheduling_strategy=where).remote(kind), ray)


def _target_of(worker: RemoteWorker) -> str:
    """The machine of a post; nothing where it does not tell."""
    try:
        about = worker.ray.get(worker.actor.about.remote(), timeout=GREETING)
    except worker.ray.exceptions.RayError:
        return ""
    return str(about["target"])
