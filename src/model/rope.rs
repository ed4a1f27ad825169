//! Rotary frequencies.
