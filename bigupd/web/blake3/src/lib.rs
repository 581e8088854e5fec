//! BLAKE3 for the page: JavaScript copies bytes into a window, and this hashes them.
//!
//! A worker has one instance, which hashes one slice at a time: `begin`, then `update` for each window, then `subtree`
//! or `root`. No memory is asked for after the start, so it stays as small as it begins.

use blake3::Hasher;
use blake3::hazmat::HasherExt;
use std::cell::RefCell;

/// Bytes of the window: as much as a core's own cache holds.
const WINDOW: usize = 256 << 10;

struct State {
    hasher: Hasher,
    window: [u8; WINDOW],
    value: [u8; 32],
}

thread_local! {
    static STATE: RefCell<State> =
        RefCell::new(State { hasher: Hasher::new(), window: [0; WINDOW], value: [0; 32] });
}

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(|state| work(state))
}

/// Address of the window, into which bytes are to be copied.
#[unsafe(no_mangle)]
pub extern "C" fn window() -> *mut u8 {
    with(|state| state.window.as_mut_ptr())
}

/// Bytes of the window.
#[unsafe(no_mangle)]
pub extern "C" fn window_len() -> usize {
    WINDOW
}

/// Address of the 32 bytes of the last result.
#[unsafe(no_mangle)]
pub extern "C" fn value() -> *const u8 {
    with(|state| state.value.as_ptr())
}

/// Begins with bytes that stand at `offset` in their file, a multiple of 1024.
#[unsafe(no_mangle)]
pub extern "C" fn begin(offset: f64) {
    with(|state| {
        // Not reset(), after which the last offset still counts.
        state.hasher = Hasher::new();
        // A file's offsets are whole numbers below 2^53, which JavaScript has as f64.
        state.hasher.set_input_offset(offset as u64);
    });
}

/// Hashes the first `len` bytes of the window.
#[unsafe(no_mangle)]
pub extern "C" fn update(len: usize) {
    with(|state| {
        let State { hasher, window, .. } = state;
        hasher.update(&window[..len]);
    });
}

/// Makes the chaining value of a subtree the result.
#[unsafe(no_mangle)]
pub extern "C" fn subtree() {
    with(|state| state.value = state.hasher.finalize_non_root());
}

/// Makes the hash of a whole file the result.
#[unsafe(no_mangle)]
pub extern "C" fn root() {
    with(|state| state.value = *state.hasher.finalize().as_bytes());
}
