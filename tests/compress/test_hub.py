"""Uploads to the Hub: refused in one line before any work, and a whole round trip with a server that plays the Hub."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from click.testing import CliRunner

import compress
from cli import main
from compress import hub
from tests.conftest import DATA, ROOT

MODEL = str(DATA / "mixlm")
COMMAND = ("compress", MODEL, "--method", "round_to_nearest", "--out")
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """What of the Hub an upload, and the download after it, asks for; files and requests are the server's."""

    def log_message(self, *_):
        """Nothing is printed."""

    def answer(self, content=b"", status=200, **headers):
        """Send bytes, or anything else as JSON."""
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        """Who am I, what is in the repository, and its files."""
        asked, files = self.path.partition("?")[0], self.server.files
        self.server.seen.append((self.command, asked))
        if asked == "/api/whoami-v2":
            known = self.headers["Authorization"] == "Bearer right"
            about = {"name": "me", "orgs": [{"name": "us"}], "auth": {"accessToken": {"role": self.server.role}}}
            return self.answer(about if known else {"error": "no"}, 200 if known else 401)
        if asked.startswith("/api/models/me/small/tree/"):
            return self.answer([{"type": "file", "path": n, "size": 1, "oid": "x"} for n in files])
        if asked.startswith("/api/models/me/small"):
            return self.answer({"id": "me/small", "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]})
        name = asked.rpartition("/resolve/")[2].partition("/")[2]
        if name in files:
            return self.answer(files[name], ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
        self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        """A new repository, and a commit to it."""
        asked, sent = self.path.partition("?")[0], self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, asked))
        if asked == "/api/repos/create":
            self.server.created = json.loads(sent)
            return self.answer({"url": f"{self.server.address}/me/small", "name": "me/small", "id": "me/small"})
        if asked == "/api/validate-yaml":
            self.server.card = json.loads(sent)["content"]
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in asked:
            names = [f["path"] for f in json.loads(sent)["files"]]
            kinds = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            return self.answer({"files": kinds})
        if "/commit/" in asked and not self.server.full:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    del self.server.files[line["value"]["path"]]
            address = f"{self.server.address}/me/small/commit/{COMMIT}"
            return self.answer({"commitOid": COMMIT, "commitUrl": address, "success": True})
        self.answer({"error": "the storage is full"}, 403)


@pytest.fixture
def server():
    """A Hub with an older model in me/small."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.address = f"http://127.0.0.1:{server.server_port}"
        server.files = {"model-00001-of-00002.safetensors": b"old", "notes.txt": b"mine"}
        server.seen, server.created, server.card, server.role, server.full = [], None, None, "write", False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def online(server, monkeypatch, tmp_path):
    """This process takes the server for the Hub and has a token for it."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "right")
    return server


def refused(tmp_path, repo, *parts):
    """The command ends with one line that has `parts`, before any work."""
    found = CliRunner().invoke(main, [*COMMAND, str(tmp_path / "m"), "--push-to-hub", repo])
    last = found.stderr.strip().splitlines()[-1]
    assert found.exit_code == 2 and found.stdout == "" and "Traceback" not in found.stderr
    assert last.startswith(f"Error: --push-to-hub {repo}") and all(p in last for p in parts), last
    assert not (tmp_path / "m").exists() and not list(tmp_path.glob(".m*"))


@pytest.mark.parametrize("repo", ["a b", "a/b/c", "-x", "me/x.git", "a--b", ""])
def test_a_name_that_is_none(repo, tmp_path):
    if repo:
        refused(tmp_path, repo, "is no name on the Hub: give NAME or USER/NAME")
    else:
        with pytest.raises(ValueError, match="is no name on the Hub"):
            hub.check(repo)


def test_without_the_network(tmp_path, monkeypatch):
    refused(tmp_path, "me/small", "HF_HUB_OFFLINE is set: unset it")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_TOKEN", "right")
    refused(tmp_path, "me/small", "http://127.0.0.1:1 cannot be reached", "look at the network")


def test_without_a_token_that_may(tmp_path, online, monkeypatch):
    refused(tmp_path, "you/small", "'you' is not yours: give one of me, us")
    online.role = "read"
    refused(tmp_path, "me/small", "the token may only read")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    refused(tmp_path, "me/small", "the Hub does not know the token: run hf auth login")
    monkeypatch.delenv("HF_TOKEN")
    refused(tmp_path, "me/small", "needs a token: run hf auth login, or set HF_TOKEN")
    assert online.created is None


def test_an_upload_that_fails_keeps_the_folder_and_says_how_to_go_on(tmp_path, online, encoder, tokenizer):
    online.full = True
    with pytest.raises(
        RuntimeError, match="is written, but was not uploaded .*: hf upload me/small .*/m --private goes on"
    ):
        compress.save(encoder, tokenizer, tmp_path / "m", {}, push_to_hub="small")
    assert (tmp_path / "m/README.md").exists()
    with pytest.raises(ValueError, match="exists already"):
        compress.save(encoder, tokenizer, tmp_path / "m", {}, push_to_hub="small")


# a process of its own, since the address of the Hub is read when its library is imported; argv: the command
UPLOAD = """
import sys, torch, cli, compress
cli.main(sys.argv[1:], standalone_mode=False)
one, other = (compress.load(name)[0].state_dict() for name in (sys.argv[6], "me/small"))
assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
"""


def test_what_is_uploaded_is_the_folder_and_loads_from_there(server, tmp_path):
    there = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path), "HF_TOKEN": "right", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", UPLOAD, *COMMAND, str(tmp_path / "m"), "--push-to-hub", "me/small", "--json"]
    done = subprocess.run(command, env={**os.environ, **there}, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["uploaded"].startswith(server.address)
    assert "private" in (server.created.get("visibility"), server.created.get("private") and "private")
    written = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    assert server.card == written["README.md"].decode()
    assert server.files == written | {"notes.txt": b"mine"}  # weights of another model do not stay beside these
