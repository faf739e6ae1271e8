# SPDX-License-Identifier: Apache-2.0
"""What runs at each bank."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from switch.task import Net, accuracy, fit, records

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    data = records(int(context.node_config["bank"]))
    loader = DataLoader(data, batch_size=20, shuffle=True)
    optimizer = SGD(model.parameters(), lr=float(context.run_config["learning-rate"]))
    criterion = nn.CrossEntropyLoss()
    fit(model, optimizer, loader, criterion)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(data)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    data = records(int(context.node_config["bank"]))
    figures = MetricRecord({"num-examples": len(data)})
    figures["accuracy"] = accuracy(model, data)
    return Message(RecordDict({"metrics": figures}), reply_to=message)
