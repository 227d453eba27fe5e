"""Delivery: running the notebooks headless, wherever this is (Kaggle, Colab, a laptop)."""
