"""Steps of a net on two devices in float64, by as many ranks as there are: NET STEPS OUT.

NET is alexnet, or small. Rank 0 writes the weights to OUT.npz; to OUT.json losses, digests of all ranks' weights, bytes sent.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "alexnet"))
from model import AlexNet

import minidl
import minidl.distributed as dist
import minidl.nn.functional as F
from minidl import count_traffic, nn
from minidl.data import DistributedSampler, ImageLoader, InputStep, Patterns, RandomCrop, RandomHorizontalFlip
from minidl.optim import SGD
from minidl.random import Generator

BATCH = 12


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.hidden = nn.Linear(8 * 12 * 12, 20, device="cpu:1")
        self.out = nn.Linear(20, 10)

    def forward(self, images):
        x = F.flatten(F.relu(self.conv(minidl.Tensor(images))), 1)
        return self.out(F.dropout(F.relu(self.hidden(x.to("cpu:1"))), 0.5).to("cpu:0"))

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels)


def main(name, steps, out):
    dist.init_process_group(timeout=60)
    rank, size = dist.get_rank(), dist.get_world_size()
    minidl.manual_seed(3)
    net = AlexNet(10, width=0.05) if name == "alexnet" else Small()
    size_of_image = (256, 224) if name == "alexnet" else (32, 28)
    generator = Generator(rank)
    for p in net.parameters():  # every rank draws others; rank 0's count
        nn.init.copy_(p, 0.05 * generator.normal(p.shape, np.float64))
    net.to(np.float64)
    model = nn.parallel.DistributedDataParallel(net, bucket_cap_mb=0.05)
    dataset = Patterns(BATCH * steps - 5, True, image_size=size_of_image[0])
    loader = ImageLoader(
        dataset,
        BATCH,
        shuffle=True,
        batch_transform=InputStep(RandomCrop(size_of_image[1]), RandomHorizontalFlip()),
        seed=5,
        num_replicas=size,
        rank=rank,
    )
    assert list(DistributedSampler(dataset, seed=5)) == list(DistributedSampler(dataset, size, rank, seed=5))
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9)
    losses = []
    with count_traffic() as traffic:
        for images, labels in loader:
            optimizer.zero_grad()
            counts = dist.gather(len(labels))  # of the last batch some ranks have one image more
            loss = net.loss(model(images.astype(np.float64) / 64 - 2), labels) * (len(labels) * size / sum(counts))
            loss.backward()
            optimizer.step()
            losses.append(np.mean(dist.gather(loss.item())))
    state = net.state_dict()
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()
    digests, sent = dist.gather(digest), sum(dist.gather(traffic["host", "other ranks"]))
    if rank == 0:
        np.savez(f"{out}.npz", **state)
        parameters = sum(p.data.nbytes for p in net.parameters())
        Path(f"{out}.json").write_text(
            json.dumps({"losses": losses, "digests": digests, "sent": sent, "bytes": parameters, "steps": steps})
        )
    dist.destroy_process_group()


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
