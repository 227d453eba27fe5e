"""The machine a notebook runs on: Kaggle, Colab or a laptop; packages, secrets, session, inputs."""
