//! The daemon around the node: arguments, setup, secrets, the lock on its state, and logging.
