//! How memory is handed out to threads.

/// Has all threads take memory from one heap, if none has begun yet.
///
/// glibc gives each thread a heap of its own, and what one thread has freed is of no use to the next. The packages of a
/// root are read by some threads, the tree is put together by another, and the image is written by yet others: with 695
/// packages, a build held 100 MB that nobody used any more.
pub fn share() {
    // SAFETY: the call takes plain integers, and is made before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
