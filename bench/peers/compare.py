"""octet and its peers on the same shapes and texts, in turns in one run.

  compare.py FOLDER MODELS [--octet NAME=PLAN.octet ...] [--worker build/release/bench/bench_peer_worker]
             [--shapes 1x16,1x128,8x128] [--lengths FILE] [--threads 2] [--rounds 12] [--json OUT]

Every engine is a process that stays alive; a round asks each of them for each shape, twice, after a pause, and counts the second
answer: what the engine before it left in the caches, and its threads that still spin, are nobody's merit. --lengths is a file with one row's number of tokens a line: batches of 32 in file order, where the peers pad to
the longest row of a batch and octet does not. Medians, and the quartiles as spread.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PEERS = ("pytorch-fp32", "onnxruntime-fp32", "onnxruntime-dynamic-int8", "onnxruntime-qdq-u8s8", "openvino-fp32",
         "openvino-int8", "ctranslate2-fp32", "ctranslate2-int8")
NEEDS = {"onnxruntime-fp32": "model.onnx", "openvino-fp32": "model.onnx", "onnxruntime-dynamic-int8": "model-dynamic.onnx",
         "onnxruntime-qdq-u8s8": "model-qdq.onnx", "openvino-int8": "model-nncf.xml", "ctranslate2-fp32": "ctranslate2",
         "ctranslate2-int8": "ctranslate2"}


class Worker:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline().strip():
            raise RuntimeError("did not start")

    def ask(self, batches):
        self.process.stdin.write(json.dumps({"batches": batches}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("stopped")
        return json.loads(line)["ms"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("models")
    parser.add_argument("--octet", action="append", default=[])
    parser.add_argument("--worker", default="build/release/bench/bench_peer_worker")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--shapes", default="1x16,1x128,8x128")
    parser.add_argument("--lengths")
    parser.add_argument("--batches", type=int, default=8, help="of 32 rows of --lengths")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json")
    options = parser.parse_args()

    work = {s: [[int(s.split("x")[1])] * int(s.split("x")[0])] for s in options.shapes.split(",") if s}
    if options.lengths:
        rows = [int(line) for line in open(options.lengths)]
        work["real"] = [rows[i * 32:i * 32 + 32] for i in range(options.batches)]

    here = os.path.dirname(os.path.abspath(__file__))
    commands = {name: [options.worker, plan, str(options.threads)]
                for name, plan in (text.split("=", 1) for text in options.octet)}
    for peer in options.peers.split(","):
        if not peer:
            continue
        if peer in NEEDS and not os.path.exists(os.path.join(options.models, NEEDS[peer])):
            print(f"{peer}: no {NEEDS[peer]}, left out", file=sys.stderr)
            continue
        commands[peer] = [sys.executable, os.path.join(here, "worker.py"), peer, options.folder, str(options.threads),
                          options.models]
    workers = []
    for name, command in commands.items():
        try:
            workers.append(Worker(name, command))
        except Exception as error:  # noqa: BLE001  a peer that fails is a row that says so
            print(f"{name}: {error}, left out", file=sys.stderr)

    times = {w.name: {s: [] for s in work} for w in workers}
    for turn in range(options.rounds + 2):
        order = workers[turn % len(workers):] + workers[:turn % len(workers)]
        for shape, batches in work.items():
            for worker in order:
                time.sleep(0.1)  # threads of the engine before spin a while after their work
                worker.ask(batches)  # its weights are in no cache after the others
                ms = worker.ask(batches)
                if turn >= 2:  # two rounds warm up
                    times[worker.name][shape].append(sum(ms))
        print(f"\rround {turn + 1} of {options.rounds + 2}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    table = {}
    print(f"{'milliseconds: median (quartiles)':28s}" + "".join(f"{s:>26s}" for s in work))
    for worker in workers:
        line = f"{worker.name:28s}"
        for shape in work:
            q = statistics.quantiles(times[worker.name][shape], n=4) if options.rounds > 1 else [0] * 3
            m = statistics.median(times[worker.name][shape])
            table.setdefault(worker.name, {})[shape] = {"median_ms": m, "q1_ms": q[0], "q3_ms": q[2]}
            line += f"{f'{m:.2f} ({q[0]:.2f}-{q[2]:.2f})':>26s}"
        print(line)
    if "real" in work:
        rows = sum(len(b) for b in work["real"])
        print("rows a second at real lengths: " +
              ", ".join(f"{n} {rows / t['real']['median_ms'] * 1e3:.1f}" for n, t in table.items()))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(table, file, indent=1)


main()
