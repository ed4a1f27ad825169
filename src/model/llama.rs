//! The decoder, written once over Backend.
