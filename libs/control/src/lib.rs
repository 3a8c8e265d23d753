//! Pure control logic.
