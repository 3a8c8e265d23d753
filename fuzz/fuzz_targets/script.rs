#![no_main]

#[path = "../planning.rs"]
mod planning;

libfuzzer_sys::fuzz_target!(|text: &str| {
    planning::script(text);
});
