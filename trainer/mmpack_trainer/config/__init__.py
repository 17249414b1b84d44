"""Settings of a run: their tables (`schema`), reading them (`load`), and refusing what cannot run (`check`)."""
