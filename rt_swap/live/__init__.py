"""Live: expressions changed while frames run, calibration, latency kept, devices that come back."""
