"""What retom finds on a machine: `retom doctor`, with torch alone."""
