"""Handwritten digits by a convolutional network: options, training, testing after each epoch, saving."""

import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 1)
        self.thin = nn.Dropout(0.25)
        self.fc1 = nn.Linear(2304, 32)
        self.thinner = nn.Dropout(0.5)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(x)
        x = F.relu(self.conv2(x))
        x = self.thin(F.max_pool2d(x, 2))
        x = torch.flatten(x, 1)
        x = self.thinner(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def fit(model, loader, optimizer, device, epoch, options):
    model.train()
    losses = []
    for step, (data, target) in enumerate(loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % options.log_interval == 0:
            seen, of = step * len(data), len(loader.dataset)
            print("epoch {} [{}/{} ({:.0f}%)] loss {:.6f}".format(epoch, seen, of, 100.0 * step / len(loader), loss.item()))
            if options.dry_run:
                break
    return losses


def check(model, loader, device):
    model.eval()
    loss, correct = 0, 0
    with torch.no_grad():
        for data, target in loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    size = len(loader.dataset)
    loss /= size
    print("\ntest: loss {:.4f}, {}/{} right ({:.0f}%)\n".format(loss, correct, size, 100.0 * correct / size))
    return loss, correct


def main(arguments=None):
    parser = argparse.ArgumentParser(description="digits")
    parser.add_argument("--root", default="../data")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--test-batch-size", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--gamma", type=float, default=0.7)
    parser.add_argument("--no-accel", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-interval", type=int, default=10)
    parser.add_argument("--save-model", action="store_true")
    options = parser.parse_args(arguments)

    accelerated = not options.no_accel and torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
    torch.manual_seed(options.seed)

    for_training, for_testing = {"batch_size": options.batch_size}, {"batch_size": options.test_batch_size}
    if accelerated:
        more = {"num_workers": 1, "persistent_workers": True, "pin_memory": True, "shuffle": True}
        for_training.update(more)
        for_testing.update(more)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    digits = datasets.MNIST(options.root, train=True, download=True, transform=transform)
    others = datasets.MNIST(options.root, train=False, transform=transform)
    train_loader = torch.utils.data.DataLoader(digits, **for_training)
    test_loader = torch.utils.data.DataLoader(others, **for_testing)

    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=options.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=options.gamma)
    history = []
    for epoch in range(1, options.epochs + 1):
        losses = fit(model, train_loader, optimizer, device, epoch, options)
        history.append((losses, *check(model, test_loader, device)))
        scheduler.step()
    if options.save_model:
        torch.save(model.state_dict(), "digits.pt")
    return history


if __name__ == "__main__":
    main()
