//! What the C library's allocator keeps of what was freed.
//!
//! Entries lie in mappings of their own, as does most of what is kept of each. Everything else comes from the allocator, and GNU's gives back only what lies at the
//! end of its heaps: a page that is still in use somewhere behind a peak keeps all of it.

/// Has the allocator give all whole pages back to the system that nothing lies in. It takes its heaps one after the other, and
/// who allocates from one meanwhile waits, for milliseconds where a hundred MiB are free: not for a thread that others
/// wait for, nor all the time. Whether any were given back: none where the C library is not GNU's.
#[must_use]
pub fn give_back_heap() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    return gnu::malloc_trim(0) == 1;
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    false
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod gnu {
    #![expect(unsafe_code, reason = "only the C library can do it")]

    use std::ffi::c_int;

    // SAFETY: malloc_trim(3): callable from any thread at any time with any number, which is how many bytes to leave free at
    // the end; frees nothing that is in use; tells whether it gave anything back.
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
    }
}
