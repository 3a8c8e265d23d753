//! Rows of views.
