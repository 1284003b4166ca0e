//! Conversations. To come.
