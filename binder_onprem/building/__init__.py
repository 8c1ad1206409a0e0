"""From a repository to an image in the registry: prepare, layers or Dockerfile, push."""
