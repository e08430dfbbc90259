"""Photographs of ten classes: data, network, training, saving, loading, and the accuracy of each class."""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
from torch.utils.data import DataLoader

classes = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        for convolution in (self.conv1, self.conv2):
            x = self.pool(F.relu(convolution(x)))
        x = torch.flatten(x, 1)  # but for the batch
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def show(labels):
    print(" ".join(f"{classes[labels[j]]:5s}" for j in range(4)))


def main(root="./data", path="./photographs.pth", epochs=2, shuffle=True, workers=2):
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    trainset = torchvision.datasets.CIFAR10(root=root, train=True, download=True, transform=transform)
    trainloader = DataLoader(trainset, batch_size=4, shuffle=shuffle, num_workers=workers)
    testset = torchvision.datasets.CIFAR10(root=root, train=False, download=True, transform=transform)
    testloader = torch.utils.data.DataLoader(testset, batch_size=4, shuffle=False, num_workers=workers)

    images, labels = next(iter(trainloader))
    picture = images[0] / 2 + 0.5
    print(picture.numpy().transpose((1, 2, 0)).shape)
    show(labels)

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    print(device)
    net = Net()
    net.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    means = []
    for epoch in range(epochs):
        running_loss = 0.0
        for i, data in enumerate(trainloader, 0):
            inputs, labels = data[0].to(device), data[1].to(device)
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if i % 5 == 4:
                means.append(running_loss / 5)
                print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / 5:.3f}")
                running_loss = 0.0
    torch.save(net.state_dict(), path)

    net = Net()
    net.load_state_dict(torch.load(path, weights_only=True))
    net.to(device)
    images, labels = next(iter(testloader))
    outputs = net(images.to(device))
    _, predicted = torch.max(outputs, 1)
    show(labels)
    show(predicted)

    correct, total = 0, 0
    right, all_of = {name: 0 for name in classes}, {name: 0 for name in classes}
    with torch.no_grad():
        for images, labels in testloader:
            images, labels = images.to(device), labels.to(device)
            _, predicted = torch.max(net(images), 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
            for label, prediction in zip(labels, predicted):
                if label == prediction:
                    right[classes[label]] += 1
                all_of[classes[label]] += 1
    print(f"of {total} test images {100 * correct // total} % are right")
    for name, count in right.items():
        if all_of[name] > 0:
            print(f"{name:5s}: {100 * float(count) / all_of[name]:.1f} %")
    return means, correct, right, all_of


if __name__ == "__main__":
    main()
