//! The trestle command: commands, output, endpoint walking and retries
