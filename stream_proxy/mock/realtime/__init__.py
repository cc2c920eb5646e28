"""The Realtime API in text: client events in, server events out, without a socket."""
