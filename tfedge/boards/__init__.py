"""What a file meets on a board: targets and checks, Edge TPU mapping, Arm cost, deploy."""
