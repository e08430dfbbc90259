"""minidl against PyTorch, number by number. Needs torch; without it these tests are skipped."""
