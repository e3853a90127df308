"""Ten lines from a data set of grasps to a step of training: a toy that guesses joint values from the hands' poses."""

import torch
from torch.utils.data import DataLoader

import bimangrasp

data = bimangrasp.load("data/experiments/demo").select("hand/translation", "hand/rotation", "hand/joints")
batch = next(iter(DataLoader(data, batch_size=16, shuffle=True, collate_fn=data.collate)))
poses = torch.cat([torch.as_tensor(batch[f"hand/{part}"]).flatten(1) for part in ("translation", "rotation")], 1)
joints = torch.as_tensor(batch["hand/joints"]).flatten(1)
network = torch.nn.Sequential(torch.nn.Linear(24, 64), torch.nn.ReLU(), torch.nn.Linear(64, joints.shape[1]))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
before = torch.nn.functional.mse_loss(network(poses), joints)
before.backward()
optimizer.step()
after = torch.nn.functional.mse_loss(network(poses), joints)
print(f"{len(data)} grasps; the loss went from {before:.4f} to {after:.4f} rad^2")
