//! The program. All of it is in [`cli`]; here is only what a process has one of.

/// Many small, short-lived buffers from many threads: measurably faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
