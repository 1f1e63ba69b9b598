//! What the calling thread asks for memory, counted, for programs that link the library.

use std::cell::Cell;

use tests::memory::Told;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is being taken down has no count any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

/// The system's allocator, with a count for each thread: for `#[global_allocator]`.
pub const COUNTED: Told = Told(count);

/// How often the calling thread has asked for memory so far: new, zeroed or grown.
pub fn calls() -> u64 {
    CALLS.with(Cell::get)
}
