"""Many questions over many processes: joining them, and keeping what each has answered."""
