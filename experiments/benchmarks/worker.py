"""What both workers do with their standard input and output. Imports neither jax nor torch.

A request is a line, {"job": "train" | "denoise", "batch": B, "count": N} or {"job": "report"}; its answer is a line:
seconds a step, averaged over N steps, or the number of parameters and the peak memory of the process in bytes.
"""

import json
import resource
import sys
import time


def serve(worker) -> None:
    """Answers requests until the input ends; each job runs twice untimed first, to compile and to warm up."""
    warm = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request["job"] == "report":
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {"parameters": worker.parameters(), "peak_bytes": peak}
        else:
            job, batch, count = getattr(worker, request["job"]), request["batch"], request["count"]
            if (key := (request["job"], batch)) not in warm:
                warm.add(key)
                job(batch, count)
                job(batch, count)
            start = time.perf_counter()
            job(batch, count)
            answer = {"seconds": (time.perf_counter() - start) / count}
        print(json.dumps(answer), flush=True)
