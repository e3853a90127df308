"""The modes that make no grasps by themselves: validate, export, import, objects, hand."""
