#!/usr/bin/env python3
"""Builds the server's image for CPUs with Docker or Buildah, starts it, and asks it for a recommendation.

    image.py [--without-registry] [--tag canet:0.1.0] [--archive FILE]

The image is that of the Dockerfile with NATIVE=1. Its base images come from a container registry, and cargo runs in one of them.
With --without-registry the base image is made of Debian's packages by mmdebstrap, and the server is the binary of `make
build-native`. Docker is used if its engine answers, and else Buildah.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from common import REPOSITORY, SetupError, cache, call, locked, output, run, say, version
from licences import write_licences

# Debian's release of the base image, as in the Dockerfile.
RELEASE = "bookworm"
# Files of packages that Debian's slim image leaves out, too.
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"]
BASE_SECONDS = 7 * 24 * 3600
START_SECONDS = 60


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--without-registry", action="store_true", help="use Debian's packages and --canet")
    options.add_argument("--tag", default=f"canet:{version()}")
    options.add_argument("--archive", type=Path, help="file to which the image is written as an OCI archive")
    options.add_argument("--canet", type=Path, default=REPOSITORY / "target" / "native" / "release" / "canet")
    options = options.parse_args()
    builder = find_builder()
    say(f"building {options.tag} with {type(builder).__name__.lower()}")
    if options.without_registry:
        with tempfile.TemporaryDirectory() as directory:
            builder.build(options.tag, local(builder, options.canet, Path(directory)))
    else:
        builder.build(options.tag, [])
    with builder.started(options.tag) as url:
        say(f"{options.tag} recommends {', '.join(ask(url))} to someone who has seen 50")
    if options.archive:
        builder.save(options.tag, options.archive)
    print(options.tag)


def find_builder():
    refusal = None
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if asked.returncode == 0:
            return Docker()
        refusal = asked.stderr.strip() or f"`docker info` ended with {asked.returncode}"
    if shutil.which("buildah"):
        return Buildah()
    if refusal:
        raise SetupError(
            f"Docker is installed, but its engine does not answer: {refusal}\nStart the engine, let this user have its socket, or "
            "install Buildah (Debian and Ubuntu: apt-get install buildah)"
        )
    raise SetupError("there is neither a Docker engine nor Buildah: install one (Debian and Ubuntu: apt-get install buildah)")


def local(builder, canet, directory):
    """Flags of a build that needs no registry."""
    if not canet.exists():
        raise SetupError(f"{canet} does not exist: build it by `make build-native`")
    binary = directory / "runtime" / "usr" / "local" / "bin" / "canet"
    binary.parent.mkdir(parents=True)
    call(["strip", "-o", binary, canet])
    write_licences(directory / "runtime" / "usr" / "share" / "doc" / "canet", "--package=canet", "--no-default-features")
    # The directory takes the place of the stage that compiles.
    return ["--build-context", f"build={directory}", "--build-arg", f"BASE_IMAGE={builder.imported(base())}"]


def base():
    """The archive of a small Debian, which later runs of a week use too."""
    if not shutil.which("mmdebstrap"):
        raise SetupError("mmdebstrap is missing: install it (Debian and Ubuntu: apt-get install mmdebstrap)")
    archive = cache() / "base" / f"{RELEASE}.tar"
    with locked(archive.with_name("lock")):
        if not archive.exists() or time.time() - archive.stat().st_mtime > BASE_SECONDS:
            say(f"making a base image of Debian's packages in {archive}")
            aside = archive.with_name(f"{RELEASE}.partial.tar")
            excluded = [f"--dpkgopt=path-exclude={files}" for files in LEFT_OUT]
            kept = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
            call(["mmdebstrap", "--quiet", "--variant=essential", *excluded, kept, RELEASE, aside])
            aside.replace(archive)
    return archive


class Docker:
    def build(self, tag, flags):
        call(["docker", "build", *build_flags(tag), *flags, REPOSITORY], env={**os.environ, "DOCKER_BUILDKIT": "1"})

    def imported(self, archive):
        tag = f"canet-base:{RELEASE}"
        call(["docker", "import", archive, tag])
        return tag

    @contextmanager
    def started(self, tag):
        hardened = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        container = output(["docker", "create", *hardened, "--publish", "127.0.0.1::8080", tag])
        try:
            call(["docker", "start", container])
            address = output(["docker", "port", container, "8080/tcp"]).splitlines()[0]
            yield f"http://{address}"
        except SetupError:
            say("the log of the server in the image:")
            subprocess.run(["docker", "logs", container], stdout=sys.stderr.fileno())
            raise
        finally:
            # Without an exception, which would hide the first one.
            subprocess.run(["docker", "rm", "--force", container], stdout=subprocess.DEVNULL)

    def save(self, tag, archive):
        # Since Docker 25 this is an OCI archive as well.
        call(["docker", "save", "--output", archive, tag])


class Buildah:
    # A sandbox that needs no further program. It shares the network of this machine.
    isolation = ["--isolation", os.environ.get("BUILDAH_ISOLATION", "chroot")]

    def build(self, tag, flags):
        # The OCI format has no health check.
        call(["buildah", "build", *self.isolation, "--format", "docker", *build_flags(tag), *flags, REPOSITORY])

    def imported(self, archive):
        tag = f"localhost/canet-base:{RELEASE}"
        container = output(["buildah", "from", "scratch"])
        call(["buildah", "add", "--quiet", container, archive, "/"])
        call(["buildah", "commit", "--quiet", "--rm", container, tag])
        return tag

    @contextmanager
    def started(self, tag):
        container = output(["buildah", "from", "--pull-never", tag])
        try:
            addresses = [f"--env=CANET_{name}=127.0.0.1:0" for name in ("LISTEN", "GRPC", "PROBE_LISTEN")]
            command = ["buildah", "run", *self.isolation, *addresses, container, "/usr/local/bin/canet", "serve"]
            server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
            try:
                yield listening(server)
            finally:
                # Buildah does not pass the signal on.
                os.killpg(server.pid, signal.SIGTERM)
                server.wait()
        finally:
            call(["buildah", "rm", container])

    def save(self, tag, archive):
        archive.unlink(missing_ok=True)
        call(["buildah", "push", "--quiet", tag, f"oci-archive:{archive.absolute()}:{tag}"])


def build_flags(tag):
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    arguments = {"NATIVE": "1", "VERSION": version(), "REVISION": revision or "unknown"}
    return ["--tag", tag, *(f"--build-arg={name}={value}" for name, value in arguments.items())]


def listening(server):
    """The URL at which a server listens. What it writes later is thrown away."""
    written = []
    for line in server.stderr:
        written.append(line)
        if found := re.search(r"listening on (http://[\d.:]+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return found[1]
    raise SetupError(f"the server in the image ended: {''.join(written)}")


def ask(url):
    """The items that the server recommends for item 50 of the model in the image."""
    body = json.dumps({"history": ["50"], "k": 3}).encode()
    asked = urllib.request.Request(f"{url}/recommend", body, {"content-type": "application/json"})
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=START_SECONDS) as response:
                items = [item["item"] for item in json.load(response)["items"]]
        except (ConnectionError, urllib.error.URLError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503 or time.monotonic() > end:
                raise SetupError(f"the server in the image does not answer: {error}") from None
            time.sleep(0.2)
            continue
        if len(items) != 3:
            raise SetupError(f"the server in the image recommends {items} instead of three items")
        return items


if __name__ == "__main__":
    run(main)
