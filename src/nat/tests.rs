// Filled in with the model tests.
