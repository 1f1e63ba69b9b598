//! Routing, make-then-store, repair: no I/O, clock or chance of its own.
