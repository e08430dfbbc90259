"""What observes a step: the trace of its ops, what each keeps and costs, and whether its gradients are right."""
