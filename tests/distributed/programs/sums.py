"""All-reduce and say it: BYTES TIMES. Rank 0 prints, as JSON: the hosts, the sum, bytes that were counted, seconds of each."""

import json
import sys
import time

import numpy as np

import minidl.distributed as dist
from minidl import Tensor, count_traffic

size_in_bytes, times = map(int, sys.argv[1:])
dist.init_process_group(timeout=60)
rank = dist.get_rank()
seconds = []
with count_traffic() as traffic:
    for _ in range(times):
        x = Tensor(np.full(size_in_bytes // 4, rank + 1, np.float32))
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(x)
        seconds.append(time.perf_counter() - started)
sent = sum(dist.gather(traffic["host", "other ranks"]))
if rank == 0:
    hosts = dist.get_group().hosts
    print(json.dumps({"hosts": hosts, "sums": np.unique(x.numpy()).tolist(), "sent": sent, "seconds": seconds}), flush=True)
dist.destroy_process_group()
