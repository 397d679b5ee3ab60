"""A server that has imported the libraries and forks for each command, so that commands start without slow imports.

Each fork is a process with its own devices, signals, exit code and output. Run as a script, this module is the server;
:class:`Popen` is ``subprocess.Popen`` for its forks. All workers of a test run share one server. The environment
variable ``WARM_SERVER`` (set in tests/conftest.py) names the file that holds its address.
"""

import atexit
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import filelock

LIBRARIES = (
    "jax", "jax.numpy", "jax.experimental.multihost_utils", "jax.experimental.compilation_cache.compilation_cache",
    "flax.linen", "optax", "orbax.checkpoint", "ml_collections.config_flags", "tensorboardX", "tqdm", "filelock",
    "safetensors.numpy", "PIL.Image", "grain", "scipy.io",
    "matplotlib.pyplot", "h5py", "resnet_flax.command", "resnet_flax.commands.evaluate", "resnet_flax.commands.export",
    "resnet_flax.commands.predict",
    "resnet_flax.commands.preflight", "resnet_flax.commands.summary", "resnet_flax.commands.train",
    "resnet_flax.sweeps.runner", "resnet_flax.figures.paper", "resnet_flax.figures.gates",
    "resnet_flax.figures.propagation", "resnet_flax.measurements.cost", "resnet_flax.measurements.gates",
    "resnet_flax.measurements.propagation", "resnet_flax.reporting.cost", "resnet_flax.reporting.render",
    "resnet_flax.reporting.sections",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


class Popen(subprocess.Popen):
    """``subprocess.Popen([sys.executable, ...])`` as a fork of the server."""

    _server = None  # (address, open connection); the server exits when its last such connection closes
    _lock = threading.Lock()

    @classmethod
    def _address(cls):
        with cls._lock:
            if cls._server is not None and _is_closed(cls._server[1]):
                cls._server[1].close()
                cls._server = None
            if cls._server is None:
                noted = Path(os.environ["WARM_SERVER"])
                with filelock.FileLock(f"{noted}.lock"):
                    try:
                        address = noted.read_text()
                        connection = _connected(address)
                    except OSError:  # no server was started, or it has ended
                        address = _started()
                        connection = _connected(address)
                        noted.write_text(address)
                connection.sendall(bytes(4))  # a length of 0: no request, but keeps the server alive
                cls._server = address, connection
            return cls._server[0]

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest):  # fmt: skip
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        request = json.dumps([args[1:], str(cwd), env, limit, c2pwrite >= 0, errwrite >= 0]).encode()
        fds = [fd for fd in (c2pwrite, errwrite) if fd >= 0]
        self._connection = _connected(self._address())
        socket.send_fds(self._connection, [len(request).to_bytes(4, "big")], fds)
        self._connection.sendall(request)
        self.pid = int.from_bytes(_receive(self._connection, 4), "big")
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _ended(self, timeout):
        """Waits for the exit status; returns whether it came in time."""
        with self._waitpid_lock:
            if self.returncode is None:
                self._connection.settimeout(timeout)
                try:
                    self.returncode = int.from_bytes(_receive(self._connection, 4), "big", signed=True)
                    self._connection.close()
                except (TimeoutError, BlockingIOError):
                    return False
            return True

    def _internal_poll(self, _deadstate=None, **keys):
        self._ended(0)
        return self.returncode

    def _wait(self, timeout):
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def _started():
    """Starts the server; returns its address."""
    address = f"{tempfile.mkdtemp(prefix='warm-')}/socket"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    server = subprocess.Popen(
        [sys.executable, __file__, address], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        env=environment, start_new_session=True,
    )  # fmt: skip
    with server.stdout:
        assert server.stdout.readline() == b"ready\n"
    server.returncode = 0  # prevents a warning: the server may outlive this process
    return address


def _connected(address):
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _is_closed(connection):
    """Returns whether the other end has closed a connection on which it never sends anything."""
    try:
        return connection.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _receive(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the server of forks has ended")
        data += more
    return data


def _serve(address):
    """Forks for each request, and sends back the process id and later the exit code.

    Returns only in a fork, with the request and its file descriptors.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    children, users, (waker, wakened) = {}, [], socket.socketpair()
    for end in (waker, wakened):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
    print("ready", flush=True)
    import selectors

    selector = selectors.DefaultSelector()
    for source in (listener, waker):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is waker:
                waker.recv(4096)
                _report(children)
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                size, fds, _, _ = socket.recv_fds(connection, 4, 2)
                if size == bytes(4):
                    users.append(connection)
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                request = json.loads(_receive(connection, int.from_bytes(size, "big")))
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    selector.close()
                    for end in (listener, waker, wakened, connection, *users, *children.values()):
                        end.close()
                    return request, fds
                connection.sendall(pid.to_bytes(4, "big"))
                children[pid] = connection
                for fd in fds:
                    os.close(fd)
            else:  # a test process has ended
                selector.unregister(key.fileobj)
                users.remove(key.fileobj)
                if not users:
                    sys.exit(0)


def _report(children):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in children:
            connection = children.pop(pid)
            with contextlib.suppress(OSError):
                connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
            connection.close()


def _share_programs():
    """Makes processes that train together share programs in the compilation cache.

    Jax's cache key contains the device topology, in which each process lists its own devices first. This replaces the
    topology by the kinds of the devices, as jax does on platforms without a topology.
    """
    from jax._src import cache_key

    cache_key._hash_accelerator_config = cache_key._hash_devices


def _run(request, fds):
    """Runs ``python ARGUMENTS...`` in this process, with the output, environment and folder of the request."""
    import runpy

    import jax
    from absl import logging

    (arguments, cwd, environment, limit, has_out, has_error), fds = request, list(fds)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if has_out:
        os.dup2(fds[0], 1)
    os.dup2(fds[-1] if has_error else 1, 2)
    for fd in fds:
        os.close(fd)
    # New objects, because the server's remember whether its own output was seekable.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (stays open)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    logging.get_absl_handler().python_handler.stream = sys.stderr
    os.chdir(cwd)
    sys.path.append(str(ROOT))  # as pip install -e does
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    os.environ.clear()
    os.environ.update(environment)
    for name, value in environment.items():  # jax has read these when it was imported
        key = name.lower()
        if name.startswith("JAX_") and key in jax.config.values:
            known = jax.config.values[key]
            kind = type(known) if known is not None else str
            jax.config.update(key, value.lower() in ("1", "true") if kind is bool else kind(value))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = cwd
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(cwd, arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import gc
    import importlib

    sys.path[0] = str(ROOT)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for library in LIBRARIES:
        importlib.import_module(library)
    _share_programs()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    given = _serve(sys.argv[1])
    try:
        _run(*given)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
        if code == 1 and ending.code != 1:
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # Ends like Python, but without freeing the millions of objects inherited from the server.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            code = 120
    os._exit(code)
