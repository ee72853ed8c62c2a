"""The interior-point method: central path, cones, Newton system."""
